"""Cursors of lists: opaque to clients, and good for the list that they were given out with alone.

A cursor holds a version, the id of the last order of a page, and a check sum over these and the
list (account and filter). It is no secret: whoever forges one gets another page of the same list.
"""

import base64
import uuid
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from shared.ids import is_order_id

_VERSION: Final = b"\x01"
_ID_BYTES: Final = 16
_CHECK_BYTES: Final = 7
# 24 bytes: a whole number of groups of 3, so that nothing is padded.
_BYTES: Final = len(_VERSION) + _ID_BYTES + _CHECK_BYTES


def write_cursor(order_id: str, account_id: int, statuses: Iterable[str]) -> str:
    """The cursor behind ``order_id`` in the list of an account's orders of ``statuses``."""
    content = _VERSION + uuid.UUID(order_id).bytes
    whole = content + _check(content, account_id, statuses)
    return base64.urlsafe_b64encode(whole).decode()


def read_cursor(text: str, account_id: int, statuses: Iterable[str]) -> str:
    """The order id in a cursor that was given out with this list.

    Raises:
        ValueError: it is none of this list's.
    """
    whole = base64.urlsafe_b64decode(text.encode("ascii"))
    content, check = whole[:-_CHECK_BYTES], whole[-_CHECK_BYTES:]
    if len(whole) != _BYTES or not content.startswith(_VERSION):
        raise ValueError("a cursor of another length or version")
    # The same bytes can be written in several ways, of which we write one.
    if text != base64.urlsafe_b64encode(whole).decode():
        raise ValueError("a cursor that is written otherwise")
    if check != _check(content, account_id, statuses):
        raise ValueError("a cursor of another list, or one that was changed")
    order_id = str(uuid.UUID(bytes=content[len(_VERSION) :]))
    if not is_order_id(order_id):
        raise ValueError("a cursor that names no order")
    return order_id


def _check(content: bytes, account_id: int, statuses: Iterable[str]) -> bytes:
    list_ = f"{account_id}:{','.join(sorted(statuses))}"
    return blake2b(content + list_.encode(), digest_size=_CHECK_BYTES).digest()
