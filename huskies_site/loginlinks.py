"""One-time links to log in: for the first admin, for new people, and for whoever lost a password.

A link is signed and names the person and their last log-in. Using it is a compare-and-set on that last log-in, so of
two uses at once one wins, and any later log-in makes older links worthless. No row is needed, and none is left over.
"""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.utils import timezone

SALT = "huskies.login-link"
VALID_SECONDS = 3600
PATH = "/login-link/{token}/"


def make_link(user: User) -> str:
    """The path of a link that logs this person in once, within an hour."""
    return PATH.format(
        token=signing.dumps([user.pk, _moment(user.last_login), user.password[-12:]], salt=SALT)
    )


def redeem(token: str) -> User | None:
    """The person whom the link logs in, once; None when it is forged, too old, used, or the person may not log in."""
    user = look(token)
    if user is None:
        return None
    before = {"last_login": user.last_login} if user.last_login else {"last_login__isnull": True}
    won = User.objects.filter(pk=user.pk, is_active=True, **before).update(last_login=timezone.now())
    return User.objects.get(pk=user.pk) if won else None


def look(token: str) -> User | None:
    """Whom the link would log in, without using it up."""
    try:
        pk, moment, password = signing.loads(token, salt=SALT, max_age=VALID_SECONDS)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    user = User.objects.filter(pk=pk, is_active=True).first()
    if user is None or _moment(user.last_login) != moment or user.password[-12:] != password:
        return None
    return user


def address() -> str:
    """Where people reach this server, without a slash at the end."""
    if settings.HUSKIES_URL:
        return str(settings.HUSKIES_URL)
    host, port = settings.HUSKIES_BIND
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def first_admin() -> User:
    """The superuser whom a link is for when nobody is named; `admin` is made when there is none."""
    admin = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if admin is None:
        admin, _ = User.objects.get_or_create(
            username="admin", defaults={"is_staff": True, "is_superuser": True}
        )
        if not (admin.is_superuser and admin.is_staff and admin.is_active):
            admin.is_superuser = admin.is_staff = admin.is_active = True
            admin.save(update_fields=["is_superuser", "is_staff", "is_active"])
        if not admin.password:
            admin.set_unusable_password()
            admin.save(update_fields=["password"])
    return admin


def nobody_can_log_in() -> bool:
    """Whether no superuser has a password or has ever logged in: a first start."""
    for admin in User.objects.filter(is_superuser=True, is_active=True):
        if admin.last_login is not None or admin.has_usable_password():
            return False
    return True


def _moment(value: datetime | None) -> str:
    return value.isoformat() if value else ""
