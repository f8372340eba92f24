"""Pages of projects and stories. Stories are named by project and number, never by a database id."""

from django.urls import path

from pipeline import host_views, project_views, views

urlpatterns = [
    path("hosts/", host_views.all_hosts, name="hosts"),
    path("hosts/do/", host_views.host_do, name="host-do"),
    path("projects/add/", project_views.project_add, name="project-add"),
    path("gates/<int:pk>/", views.gate_run, name="gate-run"),
    path("p/<slug:name>/", views.board, name="board"),
    path("p/<slug:name>/archived/", views.archived, name="archived"),
    path("p/<slug:name>/new/", views.story_create, name="story-create"),
    path("p/<slug:name>/settings/", project_views.project, name="project"),
    path("p/<slug:name>/propose/", project_views.project_propose, name="project-propose"),
    path("p/<slug:name>/refresh/", project_views.project_refresh, name="project-refresh"),
    path("p/<slug:name>/members/", project_views.member_set, name="member-set"),
    path(
        "p/<slug:name>/versions/<int:pk>/approve/",
        project_views.version_decide,
        {"answer": "approve"},
        name="version-approve",
    ),
    path(
        "p/<slug:name>/versions/<int:pk>/reject/",
        project_views.version_decide,
        {"answer": "reject"},
        name="version-reject",
    ),
    path("p/<slug:name>/<int:number>/", views.story, name="story"),
    path("p/<slug:name>/<int:number>/edit/", views.story_edit, name="story-edit"),
    path("p/<slug:name>/<int:number>/delete/", views.story_delete, name="story-delete"),
    path("p/<slug:name>/<int:number>/diff/", views.story_diff, name="story-diff"),
    path("p/<slug:name>/<int:number>/do/<slug:verb>/", views.story_do, name="story-do"),
    path("p/<slug:name>/<int:number>/criteria/<int:pk>/", views.criterion_tick, name="criterion-tick"),
]
