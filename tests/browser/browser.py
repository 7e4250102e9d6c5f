"""Which Chromium the tests drive: one that is named, the package's, or the machine's."""

import os
import shutil
from pathlib import Path

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
AXE = MODULES / "axe-core" / "axe.min.js"

_UNPACKED = MODULES / ".chromium"
_SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome")

# No service of its maker's is looked for, and no sandbox that only root or a setting could give.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


class NoBrowser(Exception):
    """There is no Chromium to run; the message says what was tried and what to do."""


def find_chromium() -> tuple[Path, dict[str, str]]:
    """The program and the environment that it needs (raises ``NoBrowser``)."""
    named = os.environ.get("CHROMIUM")
    if named:
        if not Path(named).is_file():
            raise NoBrowser(f"CHROMIUM names {named}, which is no file.")
        return Path(named), dict(os.environ)
    packed = _UNPACKED / "chromium"
    if packed.is_file() and os.uname().machine == "x86_64":
        return packed, _environment()
    for name in _SYSTEM_NAMES:
        found = shutil.which(name)
        if found:
            return Path(found), dict(os.environ)
    raise NoBrowser(
        "No Chromium: the one that npm brings (tests/browser/node_modules/.chromium) is for Linux"
        f" on x86-64 and is not here, and none of {', '.join(_SYSTEM_NAMES)} is on PATH. Run"
        " `make test-browser`, or install a Chromium and name it: CHROMIUM=/path/to/chromium."
    )


def _environment() -> dict[str, str]:
    """What lets it run on a machine without its libraries and without a font."""
    libraries = [str(_UNPACKED / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
        "FONTCONFIG_FILE": str(_UNPACKED / "fonts.conf"),
    }
