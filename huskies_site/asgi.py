"""HTTP and WebSockets. Every socket asks for a log-in, and for an Origin among our hosts."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "huskies_site.settings")
http = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator, WebsocketDenier  # noqa: E402
from django.conf import settings  # noqa: E402

from pipeline.routing import websocket_urlpatterns  # noqa: E402


class OwnOrigin:
    """Turns away a socket whose Origin is not the address that was asked for, nor HUSKIES_URL.

    Cookies do not know ports: without this, a page of another program on this machine could read the boards of whoever opens it.
    """

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        headers = {name: value.decode("latin1") for name, value in scope["headers"]}
        origin = headers.get(b"origin", "")
        own = urlsplit(origin).netloc == headers.get(b"host") or origin in getattr(
            settings, "CSRF_TRUSTED_ORIGINS", []
        )
        application = self.application if own else WebsocketDenier()
        return await application(scope, receive, send)


application = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": OwnOrigin(
            AllowedHostsOriginValidator(AuthMiddlewareStack(URLRouter(websocket_urlpatterns)))
        ),
    }
)
