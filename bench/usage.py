"""What processes use, read from /proc: CPU seconds by part, memory by process."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from local.processes import Process, group_members

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME = 11, 12
"""Places in /proc/PID/stat, counted after the command's name."""

Cpu = dict[str, float]
"""CPU seconds by the name of a part."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process holds, in MB; PSS counts what several share by its share."""

    part: str
    pid: int
    rss: float
    pss: float


def cpu_seconds(parts: Mapping[str, Iterable[Process]]) -> Cpu:
    """CPU seconds that the living processes of each part have used so far."""
    return {
        part: sum(_cpu_of(pid) for process in processes for pid in _members(process))
        for part, processes in parts.items()
    }


def cpu_between(before: Cpu, after: Cpu) -> Cpu:
    """What was used between two looks."""
    return {part: round(after[part] - before.get(part, 0.0), 3) for part in after}


def memory(parts: Mapping[str, Iterable[Process]]) -> list[Memory]:
    """What each process of each part holds now."""
    return [
        _memory_of(part, pid)
        for part, processes in parts.items()
        for process in processes
        for pid in _members(process)
        if (_PROC / str(pid) / "smaps_rollup").exists()
    ]


def _members(process: Process) -> list[int]:
    return group_members(process.pid) if process.running else []


def _cpu_of(pid: int) -> float:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return 0.0  # it ended meanwhile
    # The second field is the command's name in parentheses; it may itself hold any character.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS


def _memory_of(part: str, pid: int) -> Memory:
    sizes = {"Rss": 0.0, "Pss": 0.0}
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in sizes:
            sizes[name] = int(value.split()[0]) / 1024
    return Memory(part, pid, round(sizes["Rss"], 1), round(sizes["Pss"], 1))
