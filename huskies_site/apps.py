from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "huskies_site"

    def ready(self) -> None:
        from huskies_site import checks  # noqa: F401 - registers them
