"""Encryption of credentials at rest, with a key that is not in the database.

The key file `seal.key` (0600) in the data folder holds one random key a line: the first seals, all of them open. Each
is stretched by HKDF-SHA256 (RFC 5869) to a key for Fernet, as the `cryptography` library has it. A backup of the
database without that file holds no usable credential.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import secrets
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pipeline import conf
from pipeline.datafolder import make_secret
from pipeline.exceptions import Refused
from pipeline.processes.runfolder import write_durably

KEY_FILE = "seal.key"
KEY_BYTES = 32
PURPOSE = b"huskies credentials, version 1"


class SealBroken(Refused):
    """A credential cannot be opened."""


def seal(value: str) -> str:
    """The value as text that is safe to store. Makes the key file when there is none yet."""
    return _box(make=True).encrypt(value.encode()).decode("ascii")


def unseal(sealed: str) -> str:
    """What was sealed. Raises SealBroken when the key file is missing, or is not the one that it was sealed with."""
    try:
        return _box(make=False).decrypt(sealed.encode("ascii")).decode()
    except (InvalidToken, UnicodeError) as error:
        raise SealBroken(
            f"A credential cannot be opened: it was sealed with another key than {_path()} holds. Put the old key file back "
            "(or its line below the first one), or add the credential again."
        ) from error


def add_key() -> None:
    """Begin a new key: it seals from now on, and the older ones still open. Then `resealed` each stored value."""
    _box(make=True)
    old = _path().read_text(encoding="ascii")
    write_durably(str(_path().parent), KEY_FILE, (_new_line() + old).encode("ascii"))


def resealed(sealed: str) -> str:
    """The same value, sealed with the newest key. Raises SealBroken."""
    return seal(unseal(sealed))


def forget_old_keys() -> None:
    """Keep the newest key only. What was not resealed before cannot be opened any more."""
    first = _path().read_text(encoding="ascii").splitlines()[0]
    write_durably(str(_path().parent), KEY_FILE, (first + "\n").encode("ascii"))


def _path() -> Path:
    return conf.home() / KEY_FILE


def _new_line() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode("ascii") + "\n"


def _box(*, make: bool) -> MultiFernet:
    path = _path()
    if make and not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_secret(path, _new_line())
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        lines = path.read_text(encoding="ascii").split()
    if not lines:
        raise SealBroken(
            f"A credential cannot be opened: its key file {path} is missing. Put it back, or add the credential again."
        )
    try:
        return _opened(tuple(lines))
    except ValueError as error:
        raise SealBroken(
            f"A credential cannot be opened: its key file {path} is damaged. Put it back from a backup."
        ) from error


@functools.lru_cache(maxsize=2)
def _opened(lines: tuple[str, ...]) -> MultiFernet:
    """Raises ValueError."""
    return MultiFernet([Fernet(_stretched(base64.b64decode(line, validate=True))) for line in lines])


def _stretched(key: bytes) -> bytes:
    if len(key) < KEY_BYTES:
        raise ValueError("too short to be a key")
    return base64.urlsafe_b64encode(HKDF(SHA256(), 32, None, PURPOSE).derive(key))
