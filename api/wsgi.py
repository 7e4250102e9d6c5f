"""What gunicorn serves: ``gunicorn -c api/gunicorn_conf.py api.wsgi:app``."""

from api.app import create_app
from shared.logs import configure_logs

configure_logs()
app = create_app()
