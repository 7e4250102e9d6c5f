"""Writes the document of an API with default settings: ``python -m api.openapi FILE``."""

import json
import sys
from pathlib import Path

from api.app import create_app
from api.openapi.document import build
from shared.settings import Settings


def main(arguments: list[str]) -> None:
    """Write the document to the file that ``arguments`` names."""
    # The defaults, whatever the environment says: the file is the same on every machine.
    app = create_app(Settings.model_construct())
    shown = build(app.url_map, asks_keys=True)
    Path(arguments[0]).write_text(written(shown), encoding="utf-8")


def written(shown: dict[str, object]) -> str:
    """The document as it is kept: for people to read and for git to compare."""
    return json.dumps(shown, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
