"""What each route asks of its caller: one line for each endpoint, and nothing for any other."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

UNVERSIONED: Final = "unversioned_"
"""What the names of blueprints begin with that repeat the routes without a version."""

ACCOUNT_ARGUMENT: Final = "account_id"
"""What routes call the account in their path."""


class Need(Enum):
    """What a caller must have."""

    PROBE = auto()
    """Nothing, and no limit and no list keeps anybody out: for balancers and supervisors."""
    NOTHING = auto()
    """No key; networks and limits hold."""
    KEY = auto()
    """Any good key. The route asks ``may_reach`` about each account that it touches."""
    ACCOUNT = auto()
    """A key that reaches the account in the path."""
    ALL_ACCOUNTS = auto()
    """A key for all accounts, or an operator's."""
    OPERATOR = auto()
    """An operator's key."""


NEEDS: Final[Mapping[str, Need]] = {
    "health.alive": Need.PROBE,
    "health.ready": Need.PROBE,
    "metrics.show": Need.OPERATOR,
    "accounts.open_account": Need.ALL_ACCOUNTS,
    "accounts.show": Need.ACCOUNT,
    "orders.place": Need.ACCOUNT,
    "orders.show": Need.ACCOUNT,
    "orders.cancel": Need.ACCOUNT,
    "orders.page": Need.ACCOUNT,
    "bulk.place_many": Need.KEY,
    "events.stream": Need.ACCOUNT,
    # They say what there is for whoever has a key, and nothing of anybody's.
    "documentation.show": Need.NOTHING,
    "documentation.browse": Need.NOTHING,
    "documentation.asset": Need.NOTHING,
    "page.index": Need.NOTHING,
    "page.file": Need.NOTHING,
}

OTHER_VERSIONS: Final = frozenset({"metrics.show"})
"""Endpoints of which Accept names the version of a format, which is not one of this API."""


def is_unversioned(endpoint: str) -> bool:
    """Tell whether the endpoint is an alias without a version."""
    return endpoint.startswith(UNVERSIONED)


def with_aliases(needs: Mapping[str, Need]) -> dict[str, Need]:
    """``needs``, and the same for the aliases without a version."""
    return {**needs, **{UNVERSIONED + endpoint: need for endpoint, need in needs.items()}}
