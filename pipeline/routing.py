"""Where sockets go."""

from typing import Any

from django.urls import path

from pipeline.consumers import LiveConsumer

websocket_urlpatterns: list[Any] = [path("live/", LiveConsumer.as_asgi())]
