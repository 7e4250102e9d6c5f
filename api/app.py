"""The application factory."""

from flask import Flask, request
from werkzeug.routing import BaseConverter

from api import access, problems
from api.measuring import measure, trace
from api.routes.accounts import accounts
from api.routes.bulk import bulk
from api.routes.documentation import documentation
from api.routes.events import events
from api.routes.health import health
from api.routes.metrics import metrics
from api.routes.orders import orders
from api.routes.page import page
from api.services import EXTENSION, Services, build_services
from api.validation import FORM_FIELDS_MAX
from shared.ids import ACCOUNT_DIGITS_MAX
from shared.settings import Settings

API_PREFIX = "/v1"


class AccountIdConverter(BaseConverter):
    """An account's id in a path: a few digits; anything else is 404."""

    regex = f"[0-9]{{1,{ACCOUNT_DIGITS_MAX}}}"

    def to_python(self, value: str) -> int:
        """Read the id."""
        return int(value)


def create_app(
    settings: Settings | None = None,
    services: Services | None = None,
    gate: access.Gate | None = None,
) -> Flask:
    """Make the application.

    ``services`` replaces the real store, broker and cache, ``gate`` who comes in.
    """
    if services is None:
        services = build_services(settings or Settings())
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = services.settings.body_bytes_max
    app.config["MAX_FORM_MEMORY_SIZE"] = services.settings.body_bytes_max
    app.config["MAX_FORM_PARTS"] = FORM_FIELDS_MAX
    # A path is right or it is not: no redirect, which would repeat what the client sent.
    app.url_map.merge_slashes = False
    app.url_map.converters["account"] = AccountIdConverter
    app.extensions[EXTENSION] = services
    if services.settings.metrics:
        measure(app, services)
    if services.settings.otel_exporter_otlp_endpoint:
        trace(app)
    access.protect(app, gate or access.Gate(services, access.build_parts(services)))
    app.before_request(_refuse_raw_bytes)
    problems.register(app)
    app.register_blueprint(health)
    app.register_blueprint(documentation)
    app.register_blueprint(page)
    if services.settings.metrics:
        app.register_blueprint(metrics)
    # The paths of the challenge stay as aliases of the versioned ones.
    for blueprint in (accounts, orders, bulk, events):
        app.register_blueprint(blueprint, url_prefix=API_PREFIX)
        app.register_blueprint(blueprint, name=access.UNVERSIONED + blueprint.name)
    return app


def _refuse_raw_bytes() -> None:
    """Refuse a query of bytes that no URL holds: Flask would fail on them."""
    if not request.query_string.isascii():
        raise problems.Problem(400, "MALFORMED_REQUEST", "The query is not percent-encoded.")
