"""Access keys: what one looks like, what of it is kept, and whom it admits.

A key is written ``op_live_<id>.<secret>``. The id names it in lists and logs. The secret has 256
random bits, is shown once, and only its SHA-256 is kept (decision 0017 says why no slow hash).
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

KEY_PREFIX: Final = "op_live_"
"""What secret scanners look for."""

KEY_ACCOUNTS_MAX: Final = 1_000
"""Accounts that one key may be made for."""

KEY_NAME_LENGTH_MAX: Final = 100

_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_ID: Final = re.compile(r"[0-9a-f]{12}", re.ASCII)
_WRITTEN: Final = re.compile(KEY_PREFIX + r"([0-9a-f]{12})\.[A-Za-z0-9_-]{43}", re.ASCII)


class Scope(StrEnum):
    """What a key is good for; each one may do all that those before it may."""

    ACCOUNTS = "accounts"
    """Its own accounts."""
    ALL_ACCOUNTS = "all-accounts"
    """Every account, and opening accounts."""
    OPERATOR = "operator"
    """What operators look at, too."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """What is kept of a key; instants are aware, digests are SHA-256.

    ``previous`` is the secret before the last rotation, good until ``previous_until``. A revoked
    key has no digests any more.
    """

    id: str
    name: str
    scope: Scope
    accounts: frozenset[int]
    created_at: datetime
    digest: bytes | None
    previous: bytes | None = None
    previous_until: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def admits(self, digest: bytes, now: datetime) -> bool:
        """Tell whether whoever shows a key of this ``digest`` comes in (in constant time)."""
        if self.digest is None or self.revoked_at is not None:
            return False
        if self.expires_at is not None and now >= self.expires_at:
            return False
        if hmac.compare_digest(self.digest, digest):
            return True
        if self.previous is None or self.previous_until is None or now >= self.previous_until:
            return False
        return hmac.compare_digest(self.previous, digest)

    def reaches(self, account_id: int) -> bool:
        """Tell whether the key is good for the account, whether that exists or not."""
        return self.scope is not Scope.ACCOUNTS or account_id in self.accounts

    @property
    def reaches_all(self) -> bool:
        """The key is good for every account, those to come included."""
        return self.scope is not Scope.ACCOUNTS


def new_key_id() -> str:
    """An id for a new key."""
    return secrets.token_hex(_ID_BYTES)


def new_key(key_id: str) -> str:
    """A key as its holder gets it, with a secret that nobody else has."""
    return f"{KEY_PREFIX}{key_id}.{secrets.token_urlsafe(_SECRET_BYTES)}"


def digest_of(written: str) -> bytes:
    """What is kept of a key: the SHA-256 of all of it, so that a digest belongs to one id."""
    return hashlib.sha256(written.encode()).digest()


def id_in(written: str) -> str | None:
    """The id in what is written as a key, or None where it is not written as one."""
    match = _WRITTEN.fullmatch(written)
    return match[1] if match else None


def is_key_id(text: str) -> bool:
    """Tell whether ``text`` is written as a key's id."""
    return _ID.fullmatch(text) is not None


def check_accounts(scope: Scope, accounts: Iterable[int]) -> frozenset[int]:
    """The accounts of a key of ``scope``.

    Raises:
        ValueError: none or too many for a key of accounts, or any for another one.
    """
    found = frozenset(accounts)
    if scope is not Scope.ACCOUNTS:
        if found:
            raise ValueError("a key for all accounts names none")
        return found
    if not 1 <= len(found) <= KEY_ACCOUNTS_MAX:
        raise ValueError(f"a key names 1 to {KEY_ACCOUNTS_MAX} accounts")
    return found
