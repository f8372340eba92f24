"""The verbs of a credential: add, replace, and where one may be sent."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.db import transaction

from agents.agentfile import url_fault
from agents.models import Credential
from agents.models.credential import CredentialKind
from agents.sealing import add_key, forget_old_keys, resealed, seal
from pipeline.actors import Actor
from pipeline.exceptions import BadInput
from pipeline.services.stories import check_may
from pipeline.texts import storable

PROVIDERS_OWN = ("https://api.anthropic.com",)
"""Where a credential may go that names no address, if the agent's runtime knows no provider of its own."""
VALUE_AT_MOST = 10_000  # characters
DEFAULT_PORTS = {"https": 443, "http": 80}


def add_credential(
    name: str,
    *,
    kind: str = "api_key",
    value: str = "",
    base_urls: Sequence[str] = (),
    actor: Actor,
    replace: bool = False,
) -> Credential:
    """Store a credential, sealed. `base_urls`: where it may be sent; none = the provider's own address only.

    Raises NotAllowed, BadInput. The value is never part of a message.
    """
    check_may(actor, "credential.edit", None)
    storable(name, "name")
    value = value.strip()
    addresses = [checked_address(url) for url in base_urls if url.strip()]
    if kind == CredentialKind.HOST_LOGIN:
        if value or addresses:
            raise BadInput(
                "The host's own log-in has no value and no address of its own: the agent program keeps both."
            )
    elif kind not in CredentialKind.values:
        raise BadInput(
            f"{kind!r} is no kind of credential; the kinds are {', '.join(CredentialKind.values)}."
        )
    elif not value:
        raise BadInput(
            f"Credential {name} was given no value. On the command line it is read from standard input."
        )
    elif len(value) > VALUE_AT_MOST or not value.isascii() or not value.isprintable() or " " in value:
        raise BadInput(
            f"The value given for credential {name} is no key or token: those are one word of plain ASCII."
        )
    row = Credential(
        name=name, kind=kind, sealed=seal(value) if value else "", base_urls=list(dict.fromkeys(addresses))
    )
    try:
        row.full_clean(
            exclude={"base_urls"}, validate_unique=False
        )  # a list that is empty says: the provider only
    except ValidationError as error:
        raise BadInput(f"Credential {name!r} cannot be saved: {' '.join(error.messages)}") from error
    with transaction.atomic():
        there = Credential.objects.select_for_update().filter(name=name).first()
        if there is not None:
            if not replace:
                raise BadInput(
                    f"There is a credential {name} already. It takes this value when you ask to replace it: tick the box, or say --replace."
                )
            row.pk, row.created_at = there.pk, there.created_at
        row.save()
    return row


def checked_address(url: str) -> str:
    """The origin of an address that a credential may be sent to. Raises BadInput; does not repeat the address."""
    fault = url_fault(url.strip())
    if fault:
        raise BadInput(f"A base URL of the credential {fault}.")
    return origin(url)


def origin(url: str) -> str:
    """`scheme://host[:port]`, in lower case, without the scheme's own port: what decides who receives a key."""
    parts = urlsplit(url.strip())
    host = (parts.hostname or "").rstrip(".")
    if ":" in host:
        host = f"[{host}]"
    port = parts.port
    return f"{parts.scheme}://{host}" + (
        f":{port}" if port and port != DEFAULT_PORTS.get(parts.scheme) else ""
    )


def allowed(credential: Credential, base_url: str | None, provider: str = "") -> bool:
    """Whether the credential may be sent to an agent's base URL; None = the own address of its runtime's `provider`."""
    own = provider or PROVIDERS_OWN[0]
    named = credential.base_urls or [own]
    if base_url is None:
        return own in named
    return not url_fault(base_url) and origin(base_url) in named


def rotate_seal(*, actor: Actor) -> int:
    """A new key for all sealed values, then the old ones are forgotten; returns how many were sealed again.

    Dying in between is harmless: until the last step every key that sealed something is still in the file.
    """
    check_may(actor, "credential.edit", None)
    add_key()
    with transaction.atomic():
        rows = list(Credential.objects.select_for_update().exclude(sealed=""))
        for row in rows:
            row.sealed = resealed(row.sealed)
            row.save(update_fields=["sealed"])
    forget_old_keys()
    return len(rows)
