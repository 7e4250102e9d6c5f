"""A Flask route that does nothing: what Flask under gunicorn costs, and no more."""

from flask import Flask, Response

app = Flask(__name__, static_folder=None)

_BODY = b'{"id":1,"status":"executed","operation":"BUY","total_shares":10,"share_price":"50.5"}'


@app.get("/order")
def show() -> Response:
    """A small JSON."""
    return Response(_BODY, mimetype="application/json")
