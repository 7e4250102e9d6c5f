"""The same rows on a table that has grown and on one that is new, in turn."""

from bench.bed import ACCOUNTS_PER_SECOND, WARM_UP_REQUESTS, Bed, Meter, answered_with, figure_of
from bench.grown import TABLE_NAME, prepare
from bench.loading import run_load
from bench.options import ORDERS_PER_ACCOUNT
from bench.results import Figure, Row
from bench.rows.accepting import wanted
from bench.stack import Engines, Stack
from bench.traffic import order_requests, refs_of, seed_accounts, statuses_of, wait_until_final


def growth(bed: Bed) -> None:
    """Both stacks stay up; one is idle while the other is measured."""
    options = bed.options
    folder = bed.folder / "grown"
    prepare(folder, options.grown_accounts, ORDERS_PER_ACCOUNT)
    with (
        Engines(folder) as grown_engines,
        Engines(bed.folder / "empty") as empty_engines,
        Stack(grown_engines, table_name=TABLE_NAME) as grown,
        Stack(empty_engines) as empty,
    ):
        number = min(options.grown_accounts, round(ACCOUNTS_PER_SECOND * options.seconds))
        # Spread over the whole table, as a day's traders are.
        step = options.grown_accounts // number
        accounts = {
            "grown": list(range(1, options.grown_accounts + 1, step)),
            "empty": seed_accounts(empty_engines, empty.table_name, number),
        }
        stacks = {"grown": grown, "empty": empty}
        for name, stack in stacks.items():
            _warm_up(bed, stack, accounts[name])
        for number in range(options.rounds):
            # Each goes first in turn: what comes first may find the machine in another state.
            for name in list(stacks)[:: 1 if number % 2 else -1]:
                _measure(bed, name, stacks[name], accounts[name])


def _warm_up(bed: Bed, stack: Stack, accounts: list[int]) -> None:
    run_load(bed.job(stack.port, order_requests(accounts, WARM_UP_REQUESTS)))
    wait_until_final(stack)


def _measure(bed: Bed, name: str, stack: Stack, accounts: list[int]) -> None:
    size = f"{bed.options.growth:,} orders" if name == "grown" else "an empty table"
    orders = Row(f"{name}_distinct", f"POST to final on {size}", "orders/s")
    bed.results.add(orders, _orders(bed, stack, accounts))
    opened = Row(f"{name}_accounts", f"accounts opened on {size}", "accounts/s")
    bed.results.add(opened, _accounts(bed, stack))


def _orders(bed: Bed, stack: Stack, accounts: list[int]) -> Figure:
    requests = order_requests(accounts, wanted(bed))
    meter = Meter(stack.parts)
    outcome = run_load(bed.job(stack.port, requests, keep=True))
    seconds = wait_until_final(stack) - outcome.started_at
    cpu = meter.used()
    orders = answered_with(outcome, 202)
    statuses_of(stack, refs_of(outcome.locations))
    return figure_of(orders / seconds, orders, cpu, outcome)


def _accounts(bed: Bed, stack: Stack) -> Figure:
    requests = [("POST", "/v1/accounts", '{"cash": 1000}')]
    job = bed.job(stack.port, requests, cycle=True, seconds=bed.options.seconds / 2)
    meter = Meter(stack.parts)
    outcome = run_load(job)
    cpu = meter.used()
    opened = answered_with(outcome, 201)
    return figure_of(opened / outcome.seconds, opened, cpu, outcome)
