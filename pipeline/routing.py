"""Where sockets go."""

from typing import Any

from django.urls import path

from pipeline.consumers import LiveConsumer

live: Any = LiveConsumer.as_asgi()

websocket_urlpatterns: list[Any] = [path("live/", live)]
