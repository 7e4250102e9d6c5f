"""Command: create the table that the settings name, if it is not there."""

import sys

from shared.clients import dynamodb_client
from shared.order_store.errors import StoreUnavailable
from shared.order_store.table import create_table
from shared.settings import Settings

WAIT_SECONDS = 60.0


def main() -> int:
    """Create the table; exit status 0 when it is there and active."""
    settings = Settings()
    client = dynamodb_client(connections=1)
    try:
        made = create_table(client, settings.table_name, WAIT_SECONDS)
    except StoreUnavailable as error:
        sys.stderr.write(f"create_table: {error}\n")
        return 1
    sys.stdout.write(f"table {settings.table_name} {'created' if made else 'is there'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
