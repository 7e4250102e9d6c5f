"""What can go wrong at the store, sorted by what the caller may believe afterwards."""


class StoreError(Exception):
    """The store did not do as asked."""


class StoreUnavailable(StoreError):
    """The store could not be reached or refused for now: nothing was written; try again later."""


class StoreThrottled(StoreUnavailable):
    """The store asked to slow down: nothing was written."""


class StoreContended(StoreThrottled):
    """Somebody else was writing the same items just then: nothing was written."""


class StoreOutcomeUnknown(StoreUnavailable):
    """The answer was lost: the write may or may not have happened."""


class StoreRefused(StoreError):
    """The store called the request invalid: repeating it cannot help (a bug or a bad setting)."""


class UnreadableItem(StoreError):
    """An item does not have the shape that this code writes."""
