"""Pages of agents and sessions."""

from django.urls import path

from agents import views

urlpatterns = [
    path("sessions/<int:pk>/", views.session, name="session"),
    path("credentials/", views.credential_list, name="credentials"),
    path("next-steps/", views.next_steps, name="next-steps"),
    path("p/<slug:name>/<int:number>/start/", views.story_start, name="story-start"),
    path("p/<slug:name>/<int:number>/stop/", views.story_stop, name="story-stop"),
]
