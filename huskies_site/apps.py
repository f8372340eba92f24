from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "huskies_site"

    def ready(self) -> None:
        from huskies_site import checks, rounds  # noqa: F401 - checks register themselves

        rounds.register()
