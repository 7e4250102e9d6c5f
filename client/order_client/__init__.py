"""A client of the order processor's HTTP API."""

from order_client.bulk import BulkInterrupted, BulkResult
from order_client.client import Client
from order_client.errors import (
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    OrdersError,
    Problem,
    ProtocolError,
    RateLimited,
    ServerFault,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from order_client.events import Event
from order_client.models import Account, Balance, NewOrder, Order, Position, Status
from order_client.retry import Retry, Time
from order_client.version import __version__

__all__ = [
    "Client",
    "Account",
    "Balance",
    "BulkInterrupted",
    "BulkResult",
    "Conflict",
    "Event",
    "FieldError",
    "Forbidden",
    "Invalid",
    "NewOrder",
    "NotFound",
    "Order",
    "OrdersError",
    "Position",
    "Problem",
    "ProtocolError",
    "RateLimited",
    "Retry",
    "ServerFault",
    "Status",
    "Time",
    "Unauthorized",
    "Unavailable",
    "Unreachable",
    "__version__",
]
