"""Who did it: every verb asks for an actor, and every act is logged with one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from django.contrib.auth.models import User


@dataclass(frozen=True, slots=True)
class Actor:
    name: str
    user: User | None = None

    @classmethod
    def of(cls, user: User) -> Actor:
        return cls(user.get_username(), user)


SERVER = Actor("server")
OPERATOR_ON_HOST = Actor("the command line")
