"""gunicorn's settings. Each process loads the application itself: no client crosses a fork."""

import math
import signal
from typing import Any

from api import draining
from api.gunicorn_worker import HANDSHAKE_SECONDS, DrainingWorker
from shared import garbage, metrics_folder
from shared.settings import Settings

_FINISH_SECONDS = 10
_NOT_FOR_US = (signal.SIGHUP, signal.SIGTTOU, signal.SIGUSR2, signal.SIGWINCH)

_settings = Settings()

bind = f"{_settings.api_host}:{_settings.api_port}"
workers = _settings.api_processes
worker_class = DrainingWorker
preload_app = False
backlog = 1024
# Each costs a file descriptor, of which a process usually has 1,024.
worker_connections = max(512, 2 * _settings.api_threads)
# Answers go through the worker's own limits.
sendfile = False
# Nobody's word on scheme, path or address is taken: no answer depends on them.
forwarded_allow_ips = ""
keepalive = 30
timeout = 30
# The limit of the whole stop: gunicorn then kills what is left.
graceful_timeout = math.ceil(_settings.drain_seconds + HANDSHAKE_SECONDS + _FINISH_SECONDS)
# Its path would be one for all instances of a user.
control_socket_disable = True
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
accesslog = None
errorlog = "-"
loglevel = "warning"


def on_starting(_server: Any) -> None:
    """Make the folder in which the processes put what they count."""
    if _settings.metrics:
        metrics_folder.make()


def when_ready(_server: Any) -> None:
    """Ignore what ends single processes: theirs is the end of the instance (one socket for all)."""
    for number in _NOT_FOR_US:
        signal.signal(number, signal.SIG_IGN)


def post_fork(_server: Any, worker: DrainingWorker) -> None:
    """Tell a new process how long to drain."""
    worker.drain_seconds = _settings.drain_seconds


def post_worker_init(_worker: DrainingWorker) -> None:
    """Count from the first request on, and answer without long rounds of the garbage collector."""
    if _settings.metrics:
        # Not before: green threads are in place of threads now, and the folder is there.
        from shared import metrics_export

        metrics_export.start()
    garbage.spare_what_lives()


def worker_exit(_server: Any, _worker: DrainingWorker) -> None:
    """Keep what was counted last."""
    if _settings.metrics:
        from shared import metrics_export

        metrics_export.stop()


def child_exit(_server: Any, worker: DrainingWorker) -> None:
    """Take back what an ended process showed."""
    if _settings.metrics:
        metrics_folder.forget(worker.pid)


def on_exit(_server: Any) -> None:
    """Leave nothing behind."""
    if _settings.metrics:
        metrics_folder.remove()


def pre_request(_worker: DrainingWorker, request: Any) -> None:
    """While the instance drains, let each answer close its connection."""
    if draining.is_draining():
        request.force_close()
