"""Ids of events: opaque to clients, and good for the account that they were given out for alone.

An id holds a version, a place in the account's decisions, and a check sum over these and the
account. It is no secret: whoever forges one goes on from another place of the same account.
"""

import base64
import uuid
from hashlib import blake2b
from typing import Final

from shared.ids import NO_ORDER_ID, is_order_id
from shared.order_store.decisions import BEGINNING, Place

FROM_THE_BEGINNING: Final = "0"
"""What a client may say instead of an id, to be told of every order that was ever decided."""

_VERSION: Final = b"\x01"
_NUMBER_BYTES: Final = 8
_ID_BYTES: Final = 16
_CHECK_BYTES: Final = 8
# 33 bytes: a whole number of groups of 3, so that nothing is padded.
_LENGTH: Final = (len(_VERSION) + _NUMBER_BYTES + _ID_BYTES + _CHECK_BYTES) // 3 * 4


def write_event_id(place: Place, account_id: int) -> str:
    """The id of the event at ``place`` in the account's decisions."""
    number = place.sequence.to_bytes(_NUMBER_BYTES, "big")
    content = _VERSION + number + uuid.UUID(place.through).bytes
    return base64.urlsafe_b64encode(content + _check(content, account_id)).decode()


def read_event_id(text: str, account_id: int) -> Place:
    """The place of an event of this account.

    Raises:
        ValueError: it is none of this account's.
    """
    if text == FROM_THE_BEGINNING:
        return BEGINNING
    whole = base64.urlsafe_b64decode(text.encode("ascii"))
    # The same bytes can be written in several ways, of which we write one.
    if base64.urlsafe_b64encode(whole).decode() != text:
        raise ValueError("an event id that is written in another way")
    content, check = whole[:-_CHECK_BYTES], whole[-_CHECK_BYTES:]
    if len(text) != _LENGTH or not content.startswith(_VERSION):
        raise ValueError("an event id of another length or version")
    if check != _check(content, account_id):
        raise ValueError("an event id of another account, or one that was changed")
    number = content[len(_VERSION) :][:_NUMBER_BYTES]
    through = str(uuid.UUID(bytes=content[-_ID_BYTES:]))
    if through != NO_ORDER_ID and not is_order_id(through):
        raise ValueError("an event id that names no order")
    return Place(int.from_bytes(number, "big"), through)


def _check(content: bytes, account_id: int) -> bytes:
    return blake2b(content + f"{account_id}".encode(), digest_size=_CHECK_BYTES).digest()
