"""Every address. All need a log-in but those marked with `login_not_required`."""

from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LoginView, LogoutView, PasswordChangeView
from django.urls import include, path, reverse_lazy

from huskies_site import views

urlpatterns = [
    path("", views.home, name="home"),
    path("demo/", views.demo, name="demo"),
    path("doctor/", views.doctor, name="doctor"),
    path("healthz", views.health, name="health"),
    path("login/", login_not_required(LoginView.as_view(redirect_authenticated_user=True)), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("password/", PasswordChangeView.as_view(success_url=reverse_lazy("home")), name="password"),
    path("login-link/<str:token>/", views.login_link, name="login-link"),
    path("admin/", admin.site.urls),
    path("", include("agents.urls")),
    path("", include("pipeline.urls")),
]
