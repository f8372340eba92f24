"""Pages of agents, sessions and limits."""

from django.urls import path

from agents import agent_views, limit_views, runtime_views, spend_views, talk_views, views

urlpatterns = [
    path("agents/", agent_views.all_agents, name="all-agents"),
    path("limits/", limit_views.server_limits, name="limits"),
    path("spending/", spend_views.spend, name="spend"),
    path("prices/", spend_views.prices_page, name="prices"),
    path("limits/set/", limit_views.server_limit_set, name="limit-set"),
    path("sessions/<int:pk>/", views.session, name="session"),
    path("sessions/<int:pk>/message/", talk_views.session_message, name="session-message"),
    path("sessions/<int:pk>/interrupt/", talk_views.session_interrupt, name="session-interrupt"),
    path("sessions/<int:pk>/answer/<int:row>/", talk_views.session_answer, name="session-answer"),
    path("credentials/", views.credential_list, name="credentials"),
    path("credentials/lift/", views.pause_lift, name="pause-lift"),
    path("runtimes/", runtime_views.runtime_list, name="runtimes"),
    path("runtimes/check/", runtime_views.runtime_check, name="runtime-check"),
    path("next-steps/", views.next_steps, name="next-steps"),
    path("p/<slug:name>/agents/", agent_views.project_agents, name="agents"),
    path("p/<slug:name>/agents/<slug:agent>/do/<slug:verb>/", agent_views.agent_do, name="agent-do"),
    path("p/<slug:name>/limits/", limit_views.project_limits, name="project-limits"),
    path("p/<slug:name>/spending/", spend_views.project_spend, name="project-spend"),
    path("p/<slug:name>/limits/set/", limit_views.project_limit_set, name="project-limit-set"),
    path("p/<slug:name>/<int:number>/start/", views.story_start, name="story-start"),
    path("p/<slug:name>/<int:number>/assign/", views.story_assign, name="story-assign"),
    path("p/<slug:name>/<int:number>/stop/", views.story_stop, name="story-stop"),
]
