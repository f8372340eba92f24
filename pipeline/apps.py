from django.apps import AppConfig


class PipelineConfig(AppConfig):
    name = "pipeline"

    def ready(self) -> None:
        from pipeline import access, handlers

        handlers.register()
        access.connect()
        self.watch_access()

    def watch_access(self) -> None:
        """A log-out, a new password, a switched-off account: open sockets look at their rights."""
        from django.contrib.auth.models import User
        from django.contrib.sessions.models import Session
        from django.db.models.signals import post_delete, post_save

        from pipeline.live.tail import tail

        post_delete.connect(tail.recheck_soon, sender=Session, dispatch_uid="log-out")
        post_save.connect(tail.recheck_soon, sender=User, dispatch_uid="account")
