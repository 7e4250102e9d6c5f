"""What gunicorn serves: ``gunicorn -c api/gunicorn_conf.py api.wsgi:app``."""

from api.access import name_request
from api.app import create_app
from shared import tracing
from shared.logs import configure_logs
from shared.settings import Settings

_settings = Settings()
configure_logs(_settings.log_format, steps=[name_request])
tracing.start(_settings, "api")
app = create_app(_settings)
