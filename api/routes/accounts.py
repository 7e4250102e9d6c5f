"""POST /accounts, GET /accounts/<id>."""

from flask import Blueprint, Response, request, url_for

from api.acceptance import AccountRequest, Repeated, fingerprint
from api.routes.answers import claim_for, made, read
from api.services import services
from api.validation import AccountBody, read_body
from shared.domain.account import Account
from shared.representation import show_account, to_json

accounts = Blueprint("accounts", __name__)

_SCOPE = "accounts"


@accounts.post("/accounts")
def open_account() -> Response:
    """Open an account: 201 with its id."""
    api = services()
    received_at = api.clock()
    body = read_body(request, AccountBody)
    outcome = api.accounts.submit(
        AccountRequest(
            body,
            received_at,
            claim_for(request, _SCOPE, fingerprint(body)),
            deadline=api.deadline(),
        )
    )
    if isinstance(outcome, Repeated):
        # The same body, so the same cash: the first answer again, whatever happened since.
        account = Account(int(outcome.result), body.cash, received_at)
    else:
        account = outcome.account
    location = url_for(".show", account_id=account.id)
    shown = to_json(show_account(account))
    return made(shown, 201, location, is_repeated=isinstance(outcome, Repeated))


@accounts.get("/accounts/<account:account_id>")
def show(account_id: int) -> Response:
    """Show an account: cash and positions."""
    return read(request, to_json(services().status.account(account_id)))
