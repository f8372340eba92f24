from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "huskies_site"
