"""gunicorn's settings. Each process loads the application itself: no client crosses a fork."""

from shared.settings import Settings

_settings = Settings()

bind = f"{_settings.api_host}:{_settings.api_port}"
workers = _settings.api_processes
threads = _settings.api_threads
worker_class = "gthread"
preload_app = False
backlog = 1024
keepalive = 30
timeout = 30
graceful_timeout = 10
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
accesslog = None
errorlog = "-"
loglevel = "warning"
