"""The Docker engine and compose, as far as the check needs them."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECONDS_MAX = 300.0
_POLL_SECONDS = 0.5


class NoEngineError(Exception):
    """There is no Docker engine, or no compose; the message says which."""


class CommandFailedError(Exception):
    """A command of Docker's ended with an error; the message holds its output."""


@dataclass(frozen=True)
class Docker:
    """One compose project, on the engine that DOCKER_HOST or the context names."""

    docker: str
    compose_command: tuple[str, ...]
    project: str
    environment: Mapping[str, str]
    files: tuple[Path, ...] = field(default=(ROOT / "docker-compose.yml",))

    def run(self, *arguments: str, seconds: float = COMMAND_SECONDS_MAX) -> str:
        """What ``docker <arguments>`` prints (raises ``CommandFailedError``)."""
        return self._output([self.docker, *arguments], seconds)

    def compose(self, *arguments: str, seconds: float = COMMAND_SECONDS_MAX) -> str:
        """What ``docker compose <arguments>`` prints to standard output."""
        files = [part for path in self.files for part in ("--file", str(path))]
        command = [*self.compose_command, "--project-name", self.project, *files, *arguments]
        return self._output(command, seconds)

    def containers(self, service: str = "", *, everything: bool = False) -> list[str]:
        """Ids of the project's containers, the longest running first."""
        label = "com.docker.compose"
        filters = ["--filter", f"label={label}.project={self.project}"]
        if service:
            filters += ["--filter", f"label={label}.service={service}"]
        options = ["--no-trunc", "--quiet", *(["--all"] if everything else [])]
        return self.run("ps", *options, *filters).split()[::-1]

    def inspect(self, *names: str) -> list[dict[str, Any]]:
        """What the engine knows of containers or images."""
        found: list[dict[str, Any]] = json.loads(self.run("inspect", *names)) if names else []
        return found

    def within(self, container: str, *command: str) -> str:
        """What a command prints in a running container."""
        return self.run("exec", container, *command, seconds=60)

    def with_file(self, path: Path) -> "Docker":
        """The same project, with one more compose file."""
        return Docker(
            self.docker,
            self.compose_command,
            self.project,
            self.environment,
            (*self.files, path),
        )

    def _output(self, command: Sequence[str], seconds: float) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()[-2000:]
            raise CommandFailedError(f"{' '.join(command)}\nended with {done.returncode}: {said}")
        return done.stdout


def find(project: str, environment: Mapping[str, str]) -> Docker:
    """The engine of this machine.

    Raises:
        NoEngineError: there is none, or it does not answer.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise NoEngineError("docker is not on PATH")
    if not _succeeds(docker, "version"):
        raise NoEngineError("no Docker engine answers")
    if _succeeds(docker, "compose", "version"):
        return Docker(docker, (docker, "compose"), project, environment)
    old = shutil.which("docker-compose")
    if old is None:
        raise NoEngineError("there is neither `docker compose` nor docker-compose")
    return Docker(docker, (old,), project, environment)


def wait_for(what: str, is_so: Callable[[], bool], seconds: float) -> float:
    """Wait until ``is_so``; returns how long that took.

    Raises:
        TimeoutError: it was not so in time.
    """
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        if is_so():
            return time.monotonic() - began
        time.sleep(_POLL_SECONDS)
    raise TimeoutError(f"not within {seconds:g} s: {what}")


def _succeeds(*command: str) -> bool:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return done.returncode == 0
