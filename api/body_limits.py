"""How large a request's body may be, by its path: judged before anybody reads it."""

from dataclasses import dataclass
from typing import Final

BULK_PATH: Final = "/orders/bulk"

_BULK_TARGETS: Final = (b"/v1" + BULK_PATH.encode(), BULK_PATH.encode())


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Bytes that a body may have: ``usual``, or ``bulk`` where many orders come at once."""

    usual: int
    bulk: int

    def of(self, request_line: bytes) -> int:
        """The limit of the request that begins with ``request_line``."""
        _, _, rest = request_line.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        return self.bulk if path in _BULK_TARGETS else self.usual
