"""The folder in which the processes of an instance put what they counted, a few files each."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""What prometheus_client asks for; processes inherit it from the one that made the folder."""


def make() -> Path:
    """Make the folder, empty, before the processes of this instance are started.

    If the variable names one already, that one is used and emptied.
    """
    folder = Path(os.environ.get(VARIABLE) or tempfile.mkdtemp(prefix="orders-metrics-"))
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.db"):
        file.unlink(missing_ok=True)
    os.environ[VARIABLE] = str(folder)
    return folder


def is_made() -> bool:
    """Tell whether this process has a folder, its own or its parent's."""
    return bool(os.environ.get(VARIABLE))


def remove() -> None:
    """Leave nothing behind."""
    folder = os.environ.pop(VARIABLE, None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def forget(pid: int) -> None:
    """Take back what a process showed that has ended; what it counted stays."""
    for file in _folder().glob(f"gauge_live*_{pid}.db"):
        file.unlink(missing_ok=True)


def forget_the_dead() -> None:
    """``forget`` each process that has ended, and be it by a kill."""
    for file in _folder().glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        if not _lives(pid):
            forget(pid)


def _folder() -> Path:
    return Path(os.environ[VARIABLE])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # there is one, of somebody else
    return True
