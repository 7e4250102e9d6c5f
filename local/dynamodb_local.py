"""Run AWS's DynamoDB Local in the foreground: `python -m local.dynamodb_local PORT FOLDER`."""

import os
import sys
from pathlib import Path

from local.engines import EngineMissingError, dynamodb_local_engine


def main() -> None:
    """Become DynamoDB Local, or end with the reason why that cannot be."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    try:
        command = dynamodb_local_engine(port, folder).command
    except EngineMissingError as error:
        sys.exit(str(error))
    print(f"DynamoDB Local: http://127.0.0.1:{port}, data in {folder}", flush=True)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
