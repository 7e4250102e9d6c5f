"""One schedule: the real code in simulated processes, clients that use it, and what they saw."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial
from math import inf
from random import Random
from typing import Any, Final, cast

import worker.app
from api.acceptance import (
    AccountRequest,
    Intake,
    OrderRequest,
    Repeated,
    account_intake,
    fingerprint,
    order_intake,
    order_of,
    order_scope,
)
from api.bulk import BulkIntake
from api.cancelling import Canceller
from api.problems import Problem
from api.status import StatusReader
from api.validation import AccountBody, OrderBody
from shared.cooldown import Cooldown
from shared.domain.account import Account
from shared.domain.decision import Rules
from shared.domain.market import ALWAYS_OPEN
from shared.domain.order import FINAL_STATUSES
from shared.ids import OrderIds
from shared.order_store import accepts, parking, reads
from shared.order_store.decisions import Place, Window, decided_after, standing
from shared.order_store.errors import StoreError, StoreUnavailable
from shared.order_store.gateway import Gateway
from shared.order_store.parking import InterventionRefused
from shared.order_store.records import IdempotencyClaim, OpenedAccount, ParkedOrder
from shared.order_store.table import table_definition
from shared.replay_cache import ReplayCache
from shared.representation import show_accepted, to_json
from shared.status_cache import StatusCache
from shared.task_queue import QueueUnavailable, TaskQueue
from tests.simulation import bulk, followers
from tests.simulation.checks import Answer, Audit, Request, Seen, Watch
from tests.simulation.dynamodb import Index, Table
from tests.simulation.redis import (
    Broker,
    BrokerLook,
    CacheClient,
    CacheServer,
    PublishingApp,
    brief,
)
from tests.simulation.scenario import CALM, Scenario
from tests.simulation.scheduler import DAWN, Crashed, Event, Hub, Process, Runaway, Signal
from tests.simulation.store import StoreClient
from tests.simulation.weather import BROKER, Weather
from worker.processing import Settler
from worker.sweeper import Sweeper
from worker.sweeper import run as run_sweeper
from worker.turns import Turns

TABLE: Final = "orders"
RULES: Final = Rules(market=ALWAYS_OPEN)
ACCEPT_SECONDS_MAX: Final = 2.5
BULK_SECONDS_MAX: Final = 4.0
CLIENT_SECONDS_MAX: Final = 6.0
CACHE_SECONDS: Final = 86_400
QUIET_SECONDS_MAX: Final = 150.0
"""How long the system may take to become quiet after the last fault."""

NOWHERE: Final = 999_999
"""An account that nobody opens."""

_ISSUERS: Final = ("ACME", "GBM")
POISON: Final = "POISON"
"""Of this issuer are the orders that kill the worker that decides them."""
PUZZLE: Final = "PUZZLE"
"""Of this issuer are the orders on which the rules fail."""

_MAYBE: Final = "may or may not"
_HTTP_SECONDS: Final = 0.01
_RESTART_SECONDS: Final = 0.5
_POSTS_MAX: Final = 8
_OPERATORS: Final = 2
INDEXES: Final = tuple(
    Index(index["IndexName"], index["KeySchema"][0]["AttributeName"])
    for index in table_definition(TABLE)["GlobalSecondaryIndexes"]
)


@dataclass(slots=True)
class Report:
    """What came of one schedule."""

    seed: int
    scenario: Scenario
    problems: list[str]
    counts: Counter[str]
    trace: list[Event]
    seconds: float = 0.0


class ApiProcess(Process):
    """The parts behind the API's routes, and what the routes do with them."""

    def __init__(self, world: "World", name: str, skew: float) -> None:
        super().__init__(world.hub, name, skew, world.scenario.crash.get("api", 0.0))
        self.gateway = world.gateway(self)
        self.queue = world.queue(self)
        self.cache = world.cache(self)
        replays = world.replays(self)
        self.orders = _in_simulated_time(
            order_intake(self.gateway, self.queue, OrderIds(), self.clock, replays), self
        )
        self.accounts = _in_simulated_time(account_intake(self.gateway, self.clock, replays), self)
        self.bulk = BulkIntake(
            self.orders,
            self.gateway,
            group_seconds=ACCEPT_SECONDS_MAX,
            seconds_max=BULK_SECONDS_MAX,
            monotonic=self.monotonic,
        )
        self.status = StatusReader(self.gateway, self.cache)
        self.canceller = Canceller(
            self.gateway,
            self.status,
            clock=self.clock,
            monotonic=self.monotonic,
            sleep=self.sleep,
            random=world.hub.rng,
        )

    def open_account(self, cash: str, key: str | None) -> Answer:
        body = AccountBody.model_validate({"cash": cash})
        claim = IdempotencyClaim("accounts", key, fingerprint(body)) if key else None
        outcome = self.accounts.submit(AccountRequest(body, self.clock(), claim, self._deadline()))
        if isinstance(outcome, Repeated):
            return Answer(201, made=outcome.result, is_repeated=True)
        return Answer(201, made=str(outcome.account.id))

    def place(self, account_id: int, fields: dict[str, str], key: str | None) -> Answer:
        received_at = self.clock()
        body = OrderBody.model_validate(fields)
        claim = IdempotencyClaim(order_scope(account_id), key, fingerprint(body)) if key else None
        outcome = self.orders.submit(
            OrderRequest(account_id, body, received_at, claim, self._deadline())
        )
        if isinstance(outcome, Repeated):
            order = (
                order_of(body, account_id, outcome.result, outcome.received_at)
                if outcome.received_at
                else self.status.recorded(account_id, outcome.result).order
            )
        else:
            order = outcome.order
        return Answer(
            202, to_json(show_accepted(order)), order.id, is_repeated=isinstance(outcome, Repeated)
        )

    def show(self, account_id: int, order_id: str) -> Answer:
        return Answer(200, self.status.order(account_id, order_id))

    def cancel(self, account_id: int, order_id: str) -> Answer:
        return Answer(200, self.canceller.cancel(account_id, order_id, self._deadline()))

    def place_many(self, lines: Sequence[bytes], key: str | None) -> Iterator[bytes]:
        return self.bulk.answers(lines, key, self.clock(), may_reach=lambda _: True, made=[])

    def news(self, account_id: int, since: Place) -> Iterator[Window]:
        """What was decided after ``since``, up to now, as a stream of events reads it."""
        now = standing(self.gateway, account_id)
        place = since
        while now is not None and place.sequence < now.sequence:
            windows = decided_after(self.gateway, account_id, place, now.sequence, self.sleep)
            window = next(one for one in windows if one is not None)
            if window.end.sequence == place.sequence:
                return
            yield window
            place = window.end

    def _deadline(self) -> float:
        return self.monotonic() + ACCEPT_SECONDS_MAX


class WorkerProcess(Process):
    """One process of a worker: takes a message, settles it, acknowledges it."""

    def __init__(self, world: "World", name: str, skew: float) -> None:
        scenario = world.scenario
        super().__init__(world.hub, name, skew, scenario.crash.get("worker", 0.0))
        self.broker = world.broker
        self.queue = world.queue(self)
        self.settler = Settler(
            world.gateway(self),
            world.cache(self),
            world.turns(self),
            RULES,
            scenario.attempts_max,
            clock=self.clock,
            sleep=self.sleep,
            monotonic=self.monotonic,
            random=world.hub.rng,
        )
        self._tag: int | None = None
        if scenario.lost_children:
            # Celery acknowledges what a child held that died, unless told otherwise.
            self.when_it_dies.append(self._acknowledge_lost)

    def work(self) -> None:
        while True:
            try:
                taken = self.call(BROKER, "pop", self.broker.pop, writes=False)
            except Exception as error:  # noqa: BLE001 - whatever broker clients raise
                self.note("cannot take a message:", repr(error))
                self.sleep(0.2)
                continue
            if taken is None:
                self.broker.wait(1.0)
                continue
            self._tag, message = taken
            self.note("takes", message)
            self.handle(self._tag, list(message.names), dict(message.kwargs))
            self._tag = None

    def handle(self, tag: int, names: list[str], kwargs: dict[str, Any]) -> None:
        """As with ``task_acks_late``: the acknowledgement comes last, also after an exception."""
        try:
            worker.app.settle.run(names, **kwargs)
        except StoreUnavailable as error:
            self.hub.counts["messages given up"] += 1
            self.note("gives up:", repr(error))
        self.acknowledge(tag)

    def acknowledge(self, tag: int) -> None:
        try:
            self.call(BROKER, "ack", lambda: self.broker.ack(tag), writes=True)
        except Exception as error:  # noqa: BLE001 - whatever broker clients raise
            self.note("cannot acknowledge:", repr(error))

    def _acknowledge_lost(self) -> None:
        if self._tag is not None and self.hub.rng.random() < 0.5:
            self.hub.counts["messages of lost children"] += 1
            self.broker.ack(self._tag)


class SweeperProcess(Process):
    """The sweeper, in its own loop."""

    def __init__(self, world: "World", name: str, skew: float) -> None:
        super().__init__(world.hub, name, skew, world.scenario.crash.get("sweeper", 0.0))
        self.sweeper = Sweeper(
            world.gateway(self),
            world.queue(self),
            timedelta(seconds=world.scenario.recover_after),
            clock=self.clock,
        )
        self._every = world.scenario.sweep_every

    def work(self) -> None:
        run_sweeper(self.sweeper, self._every, cast("Any", Signal(self.hub)))


class World:
    """Everything that takes part in one schedule."""

    def __init__(self, seed: int, scenario: Scenario, rng: Random) -> None:
        self.seed = seed
        self.scenario = scenario
        self.rng = rng
        self.weather = Weather(
            rng, scenario.trouble, scenario.span, scenario.outages, scenario.slow
        )
        self.hub = Hub(rng, self.weather)
        self.hub.mended_at = scenario.span if scenario.mends else inf
        self.watch = Watch(attempts_max=scenario.attempts_max)
        self.table = Table(
            TABLE,
            INDEXES,
            clock=lambda: self.hub.now,
            lag=lambda: self.rng.random() * scenario.index_lag,
            landing=self._landing,
            observe=self.watch.observe,
            page_items_max=scenario.page_items_max,
            keeps_tokens=scenario.keeps_tokens,
        )
        self.broker = Broker(self.hub, scenario.habits, scenario.span)
        self.cache_server = CacheServer(self.hub, keeps_turns=scenario.takes_turns)
        self.apis: list[ApiProcess] = []
        self.workers: list[WorkerProcess] = []
        self.sweepers: list[SweeperProcess] = []
        self.operators: list[Process] = []
        self.clients = Process(self.hub, "clients")
        self.accounts: list[int] = []
        self.requests: list[Request] = []
        self.followers: list[followers.Follower] = []
        self.seen: dict[tuple[int, str], Seen] = {}
        self.problems: list[str] = []
        self.busy_clients = 0
        self._tags = 0
        self._keys: Counter[int] = Counter()
        self._incarnations: Counter[str] = Counter()

    def next_number(self) -> int:
        """A number that nobody had before."""
        self._tags += 1
        return self._tags

    # Parts for the processes.

    def gateway(self, process: Process) -> Gateway:
        client = StoreClient(self.table, process, self.scenario.unprocessed)
        return Gateway(cast("Any", client), TABLE, sleep=process.sleep)

    def queue(self, process: Process) -> TaskQueue:
        queue = TaskQueue(
            cast("Any", PublishingApp(self.broker, process)),
            cast("Any", BrokerLook(self.broker, process)),
        )
        queue._cooldown = Cooldown(1.0, process.monotonic)
        return queue

    def replays(self, process: Process) -> ReplayCache:
        cache = ReplayCache(cast("Any", CacheClient(self.cache_server, process)), TABLE)
        cache._cooldown = Cooldown(1.0, process.monotonic)
        return cache

    def cache(self, process: Process) -> StatusCache:
        cache = StatusCache(cast("Any", CacheClient(self.cache_server, process)), CACHE_SECONDS)
        cache._cooldown = Cooldown(1.0, process.monotonic)
        return cache

    def turns(self, process: Process) -> Turns:
        client = cast("Any", CacheClient(self.cache_server, process))
        return Turns(client, TABLE, sleep=process.sleep, monotonic=process.monotonic)

    def _landing(self) -> float:
        longest = self.scenario.landing
        return self.rng.random() * longest if longest else 0.0

    # The course of a schedule.

    def run(self) -> Report:
        try:
            self._run()
        except Runaway as error:
            self.say(str(error))
        finally:
            # Strands that still wait must end now, and not when memory is tidied up.
            everybody: list[Process] = [
                *self.apis,
                *self.workers,
                *self.sweepers,
                *self.operators,
                self.clients,
            ]
            counted = self.hub.counts.copy()
            for process in everybody:
                self.hub.kill(process)
            self.hub.end()
            self.hub.counts = counted
        problems = [*self.watch.problems, *self.hub.errors, *self.problems]
        return Report(
            self.seed, self.scenario, problems, self.hub.counts, self.hub.trace, self.hub.now
        )

    def _run(self) -> None:
        scenario = self.scenario
        self._open_accounts()
        for number in range(scenario.apis):
            self._start_api(f"api{number}")
        for number in range(scenario.workers):
            self._start_worker(f"worker{number}")
        for number in range(scenario.sweepers):
            self._start_sweeper(f"sweeper{number}")
        self._plan_disasters()
        for number in range(scenario.clients):
            share = scenario.orders // scenario.clients + (
                number < scenario.orders % scenario.clients
            )
            self.client(partial(self._shop, f"client{number}", share))
        for _ in range(min(scenario.interventions, _OPERATORS)):
            self.client(self._operate)
        for number in range(scenario.followers):
            self.followers.append(followers.Follower(self, f"follower{number}"))
            self.client(self.followers[-1].follow)
        self.hub.run(scenario.span)
        self.hub.note("world", "faults end")
        self.hub.run(scenario.span + QUIET_SECONDS_MAX, self._is_quiet)
        if not self._is_quiet():
            self.say(f"not quiet after {QUIET_SECONDS_MAX} s: {self._what_is_left()}")
        self._look_at_everything()
        self._check()

    def _is_quiet(self) -> bool:
        if self.busy_clients or not self.broker.is_empty:
            return False
        pending = self.watch.pending
        if self.scenario.sweepers:
            return not pending
        return not any(
            (request.account_id, request.order_id) in pending
            for request in self.requests
            if self._is_required(request)
        )

    def _is_required(self, request: Request) -> bool:
        """Whether its decision is promised: without a sweeper, only of what was announced."""
        return bool(request.order_id) and (self.scenario.sweepers > 0 or request.is_fresh)

    def _what_is_left(self) -> str:
        return (
            f"{self.busy_clients} clients, messages {len(self.broker.ready)} ready"
            f" {len(self.broker.unacked)} unacknowledged,"
            f" pending {[brief(*ref) for ref in self.watch.pending]}"
        )

    def _look_at_everything(self) -> None:
        """At last every accepted order is read once more, as a client reads it."""
        refs = dict.fromkeys(
            (request.account_id, request.order_id)
            for request in self.requests
            if request.order_id and self._is_required(request)
        )

        def look() -> None:
            for account_id, order_id in refs:
                while not self.apis:
                    self.clients.sleep(_RESTART_SECONDS)
                self.poll("reader", account_id, str(order_id))

        self.client(look)
        for follower in self.followers:
            self.client(follower.catch_up)
        self.hub.run(self.hub.now + QUIET_SECONDS_MAX, lambda: not self.busy_clients)
        if self.busy_clients:
            self.say("the last reads were not answered")

    def _check(self) -> None:
        audit = Audit(self.table.items, self.watch)
        audit.accounts()
        audit.index()
        audit.accepted(self.requests, self._is_required)
        self.problems += audit.problems
        for ref, item in audit.orders.items():
            status = item["status"]["S"]
            self.hub.counts[f"orders {status}"] += 1
            known = self.seen.get(ref)
            if status in FINAL_STATUSES and known and known.status != status:
                self.say(f"a client saw {brief(*ref)} as {known.status}, and it is {status}")
            is_shown = known is not None or status not in FINAL_STATUSES
            if not is_shown and any(one.order_id == ref[1] for one in self.requests):
                promised = [one for one in self.requests if one.order_id == ref[1]]
                if any(self._is_required(one) for one in promised):
                    self.say(f"{brief(*ref)} is {status}, but reads do not show it")
        for follower in self.followers:
            follower.check(audit)
        self.hub.counts["orders"] += len(audit.orders)
        self.hub.counts["parkings"] += self.watch.parkings
        is_quick = self.scenario.kind == CALM and not self.scenario.slow
        if is_quick and self.hub.counts["answers 503"]:
            self.say("requests were answered 503, though nothing failed and nothing was slow")
        if self.scenario.kind == CALM and self.watch.parkings:
            self.say(f"{self.watch.parkings} orders were parked, and nothing failed")
        self.hub.counts["repeated transactions"] += self.table.token_hits

    # Processes come and go.

    def _start_api(self, name: str) -> None:
        process = ApiProcess(self, self._incarnation(name), self._skew())
        self._keep(self.apis, process, lambda: self._start_api(name))

    def _start_worker(self, name: str) -> None:
        process = WorkerProcess(self, self._incarnation(name), self._skew())
        self._keep(self.workers, process, lambda: self._start_worker(name))
        self.hub.spawn(process, process.work)

    def _start_sweeper(self, name: str) -> None:
        process = SweeperProcess(self, self._incarnation(name), self._skew())
        self._keep(self.sweepers, process, lambda: self._start_sweeper(name))
        self.hub.spawn(process, process.work)

    def _keep(self, group: list[Any], process: Process, again: Callable[[], None]) -> None:
        """Have ``process`` in its group while it lives, and start another one when it dies."""

        def replace() -> None:
            group.remove(process)
            self.hub.at(_RESTART_SECONDS * self.rng.random(), again)

        process.when_it_dies.append(replace)
        group.append(process)

    def _incarnation(self, name: str) -> str:
        self._incarnations[name] += 1
        return f"{name}.{self._incarnations[name]}"

    def _skew(self) -> float:
        return self.rng.uniform(-1.0, 1.0) * self.scenario.skew

    def _plan_disasters(self) -> None:
        for service, start, end in self.scenario.outages:
            self.hub.counts["outages"] += 1
            self.hub.at(start, partial(self.hub.note, service, f"is away until {end:.3f}"))
        for service, at in self.scenario.flushes:
            self.hub.at(at, self.broker.flush if service == BROKER else self.cache_server.flush)
        for _ in range(self.scenario.kills):
            self.hub.at(self.rng.random() * self.scenario.span, self._kill_somebody)

    def _kill_somebody(self) -> None:
        everybody: list[Process] = [*self.apis, *self.workers, *self.sweepers]
        if everybody:
            self.hub.kill(self.rng.choice(everybody))

    # What clients do.

    def client(self, body: Callable[[], None]) -> None:
        def whole() -> None:
            try:
                body()
            finally:
                self.busy_clients -= 1

        self.busy_clients += 1
        self.hub.spawn(self.clients, whole)

    def _open_accounts(self) -> None:
        if self.scenario.opens_in_trouble:
            self.client(self._open_through_api)
            return
        gateway = Gateway(cast("Any", self.table), TABLE)
        opened_at = DAWN - timedelta(hours=1)
        for _ in range(self.scenario.accounts):
            (account_id,) = accepts.allocate_account_ids(gateway, 1)
            account = Account(account_id, Decimal(self._cash()), opened_at)
            accepts.record_accounts(
                gateway, [OpenedAccount(account, f"m{account_id}")], opened_at, f"t{account_id}"
            )
            self.accounts.append(account_id)

    def _open_through_api(self) -> None:
        for number in range(self.scenario.accounts):
            # A cash of its own tells afterwards how often a request opened an account.
            cash = f"{self._cash()}.{number + 1}"
            key = f"open-{number}" if self.rng.random() < 0.7 else None
            opened: str | None = None
            for _ in range(_POSTS_MAX * 4):
                answer = self.http("opener", lambda api: api.open_account(cash, key), "opens")  # noqa: B023
                if answer is not None and answer.status == 201:
                    opened = answer.made
                    break
                self.clients.sleep(0.3 * self.rng.random())
            made = [one for one, opening in self.watch.opened.items() if str(opening) == cash]
            if key is not None and (opened is None or [int(opened)] != made):
                self.say(f"an account was opened {len(made)} times: {made}, answered {opened}")
            if opened is not None:
                self.accounts.append(int(opened))

    def _shop(self, name: str, posts: int) -> None:
        rng = self.rng
        while not self.accounts:
            self.clients.sleep(0.1)
            if self.hub.now > self.scenario.span:
                return
        pause = self.scenario.span * 0.8 / max(posts, 1)
        for _ in range(posts):
            self.clients.sleep(pause * rng.random())
            # The first account is the hot one.
            account_id = self.accounts[min(rng.randrange(4), len(self.accounts) - 1)]
            if rng.random() < self.scenario.bulks:
                bulk.send(self, name, account_id)
                continue
            request = self._post(name, account_id)
            if request.order_id is None:
                continue
            for _ in range(rng.randrange(3)):
                self.clients.sleep(pause * rng.random() * 0.3)
                self.poll(name, account_id, request.order_id)
            if self.scenario.cancels and rng.random() < self.scenario.cancels:
                self._cancel(name, account_id, request.order_id)
            if rng.random() < 0.3:
                self._poll_another(name)
        if rng.random() < 0.05:
            self._expect(name, lambda api: api.place(NOWHERE, self.fields(), None), 404)

    def _post(self, name: str, account_id: int) -> Request:
        """Send one order; with a key, until an answer is clear, and sometimes once more."""
        rng = self.rng
        fields = self.fields()
        request = self.request(account_id, fields, has_key=rng.random() < 0.6)
        if request.key and rng.random() < self.scenario.twins:
            request.sendings += 1
            self.client(partial(self._twin, f"{name}'", request, fields))
        for _ in range(_POSTS_MAX if request.key else 1):
            self._try(name, request, fields)
            if request.order_id is not None:
                break
            self.clients.sleep(0.4 * rng.random())
        if request.key and request.order_id and rng.random() < 0.3:
            self.clients.sleep(0.3 * rng.random())
            self._try(name, request, fields)
            if rng.random() < 0.3:
                self._reuse(name, request, fields)
        elif request.key and request.order_id and rng.random() < 0.2:
            self.client(partial(self._repeat_later, f"{name}''", request, fields))
        return request

    def request(self, account_id: int, fields: dict[str, str], *, has_key: bool) -> Request:
        """A request for an order. Other accounts' clients use the same keys."""
        self._keys[account_id] += has_key
        key = f"key-{self._keys[account_id]}" if has_key else None
        request = Request(fields["timestamp"], account_id, key, self.hub.now)
        self.requests.append(request)
        return request

    def _twin(self, name: str, request: Request, fields: dict[str, str]) -> None:
        """The same request once more, at the same time or a little later."""
        if self.rng.random() < 0.5:
            self.clients.sleep(0.05 * self.rng.random())
        self._try(name, request, fields)

    def _repeat_later(self, name: str, request: Request, fields: dict[str, str]) -> None:
        """The same request once more, when its answer was long there."""
        self.clients.sleep(self.scenario.span * self.rng.random())
        self._try(name, request, fields)

    def _reuse(self, name: str, request: Request, fields: dict[str, str]) -> None:
        """Send another order under a key that was used."""
        changed, value = self.rng.choice(
            (
                ("share_price", "7777"),
                ("total_shares", "7777"),
                ("issuer_name", "OTHER"),
                ("operation", "SELL" if fields["operation"] == "BUY" else "BUY"),
                ("timestamp", DAWN.isoformat()),
            )
        )
        other = {**fields, changed: value}
        statuses = (422, 409) if request.sendings > 1 or request.is_maybe else (422,)
        self._expect(name, lambda api: api.place(request.account_id, other, request.key), *statuses)

    def _try(self, name: str, request: Request, fields: dict[str, str]) -> None:
        account_id, key = request.account_id, request.key
        answer = self.http(name, lambda api: api.place(account_id, fields, key), "posts", fields)
        self.hear(name, request, answer)

    def hear(self, name: str, request: Request, answer: Answer | None) -> None:
        """Note what was answered to a request for an order, and hold it against what was before."""
        if answer is None or answer.status == 503:
            request.is_maybe |= answer is None or _MAYBE in answer.detail
            return
        if answer.status == 409 and (request.sendings > 1 or request.is_maybe):
            # Another sending, or an earlier one that had no answer.
            self.hub.counts["keys on their way"] += 1
            return
        if answer.status != 202:
            self.say(f"{name} was answered {answer.status} {answer.detail} to {request}")
            return
        self.hub.counts["accepted"] += 1
        if answer.is_repeated:
            self.hub.counts["idempotent replays"] += 1
        request.is_fresh |= not answer.is_repeated
        if request.order_id is None:
            request.answered_at, request.first_answer = self.hub.now, answer.body
            request.order_id = answer.made
        elif (request.order_id, request.first_answer) != (answer.made, answer.body):
            self.say(f"a repeated request got another answer: {request}, {answer}")

    def _expect(self, name: str, call: Callable[[ApiProcess], Answer], *statuses: int) -> None:
        answer = self.http(name, call, f"expects {statuses[0]}")
        if answer is not None and answer.status not in (*statuses, 503):
            self.say(f"{name} was answered {answer} where {statuses[0]} belongs")

    def _poll_another(self, name: str) -> None:
        known = [request for request in self.requests if request.order_id]
        if known:
            request = self.rng.choice(known)
            self.poll(name, request.account_id, str(request.order_id))

    def poll(self, name: str, account_id: int, order_id: str) -> None:
        """Read an order, and hold the answer against what anybody saw before."""
        before = self.seen.get((account_id, order_id))
        answer = self.http(
            name, lambda api: api.show(account_id, order_id), "reads", brief(account_id, order_id)
        )
        if answer is None or answer.status == 503:
            return
        if answer.status != 200:
            self.say(f"{name} reads {brief(account_id, order_id)}: {answer}")
            return
        shown = json.loads(answer.body)
        status = str(shown["status"])
        if (shown["account_id"], shown["id"]) != (account_id, order_id):
            self.say(f"{name} reads {brief(account_id, order_id)} and is shown {answer.body!r}")
        self.hub.note(name, f"sees {brief(account_id, order_id)}", status)
        if before is not None and (before.status, before.body) != (status, answer.body):
            self.say(
                f"{brief(account_id, order_id)} was {before.status} at {before.at:.6f}, and"
                f" {status} to a read begun after that: {before.body!r} {answer.body!r}"
            )
        if status in FINAL_STATUSES:
            self.seen.setdefault((account_id, order_id), Seen(self.hub.now, status, answer.body))

    def _cancel(self, name: str, account_id: int, order_id: str) -> None:
        """Cancel an order, and hold the answer against what anybody saw before."""
        before = self.seen.get((account_id, order_id))
        what = brief(account_id, order_id)
        answer = self.http(name, lambda api: api.cancel(account_id, order_id), "cancels", what)
        if answer is None or answer.status == 503:
            return
        if answer.status == 409:
            self.hub.counts["cancellations refused"] += 1
            is_replayed = (account_id, order_id) in self.watch.touched
            if self._status_of(account_id, order_id) == "pending" and not is_replayed:
                self.say(f"{what} is pending, and was called decided")
            if before is not None and before.status == "cancelled":
                self.say(f"{what} was cancelled at {before.at:.6f}, and cannot be after that")
            return
        status = json.loads(answer.body)["status"] if answer.status == 200 else None
        if status != "cancelled":
            self.say(f"{name} cancels {what}: {answer}")
            return
        self.hub.counts["cancelled by clients"] += 1
        if before is not None and before.body != answer.body:
            self.say(f"{what} was {before.status} at {before.at:.6f}, and cancelled after that")
        self.seen.setdefault((account_id, order_id), Seen(self.hub.now, status, answer.body))

    def http(
        self,
        name: str,
        call: Callable[[ApiProcess], Answer],
        what: str,
        *details: Any,
        seconds_max: float = CLIENT_SECONDS_MAX,
    ) -> Answer | None:
        """One request to some API process; None if no answer came."""
        hub, rng = self.hub, self.rng
        hub.pause(_HTTP_SECONDS * rng.random())
        if not self.apis:
            return None
        api = rng.choice(self.apis)
        hub.note(name, what, *details, "at", api.name)
        done = Signal(hub)
        answers: list[Answer] = []

        def handle() -> None:
            answers.append(_answered(lambda: call(api)))
            done.set()

        api.when_it_dies.append(done.set)
        hub.spawn(api, handle)
        done.wait(seconds_max)
        if not answers and api.is_alive:
            self.say(f"{name} waited {seconds_max} s for an answer")
        if done.set in api.when_it_dies:
            api.when_it_dies.remove(done.set)
        hub.pause(_HTTP_SECONDS * rng.random())
        is_bad = hub.now < self.weather.until
        if not answers or (is_bad and rng.random() < self.scenario.answers_lost):
            hub.counts["clients without an answer"] += 1
            hub.note(name, "gets no answer")
            return None
        answer = answers[0]
        hub.counts[f"answers {answer.status}"] += 1
        hub.note(name, "is answered", answer.status, answer.detail, _short(answer.made))
        return answer

    def _cash(self) -> int:
        return self.rng.choice((0, 30, 60, 100, 200, 400))

    def fields(self) -> dict[str, str]:
        """What an order asks for."""
        rng = self.rng
        self._tags += 1
        # To the microsecond it is the tag by which the table's items are told apart.
        offset = rng.choice((0, 0, 0, 0, 0, 0, 0, -2, 3, 7, -20))
        at = DAWN + timedelta(seconds=int(self.hub.now) + offset, microseconds=self._tags)
        return {
            "timestamp": at.isoformat(),
            "operation": rng.choice(("BUY", "BUY", "BUY", "SELL")),
            "issuer_name": self._issuer(),
            "total_shares": str(rng.randint(1, 4)),
            "share_price": str(rng.randint(1, 20)),
        }

    def _issuer(self) -> str:
        is_hard = self.rng.random() < self.scenario.poison
        return self.rng.choice((POISON, PUZZLE) if is_hard else _ISSUERS)

    # What an operator does.

    def _operate(self) -> None:
        """Replay and cancel orders, as ``ops parked`` does."""
        rng = self.rng
        for _ in range(self.scenario.interventions):
            # Into the quiet time after the faults: what killed workers may be mended by then.
            self.clients.sleep(4 * self.scenario.span / self.scenario.interventions * rng.random())
            operator = Process(self.hub, "operator", 0.0, self.scenario.crash.get("operator", 0.0))
            self.operators.append(operator)
            done = Signal(self.hub)
            operator.when_it_dies.append(done.set)
            self.hub.spawn(operator, lambda: self._intervene(operator, done))  # noqa: B023
            done.wait()

    def _intervene(self, operator: Process, done: Signal) -> None:
        gateway, queue = self.gateway(operator), self.queue(operator)
        try:
            parked = list(reads.parked_orders(gateway))
            known = [(one.account_id, one.order_id) for one in self.requests if one.order_id]
            if parked and self.rng.random() < 0.8:
                order = self.rng.choice(parked)
                if self.rng.random() < 0.5:
                    self.poll(operator.name, order.account_id, order.id)
                parking.replay(gateway, (order.account_id, order.id), sleep=operator.sleep)
                self.hub.counts["replays"] += 1
                self._check_replayed(order)
                queue.publish([(order.account_id, order.id)], operator.clock())
            elif known and self.rng.random() < 0.7:
                account_id, order_id = self.rng.choice(known)
                parking.cancel(
                    gateway, (account_id, str(order_id)), operator.clock, sleep=operator.sleep
                )
                self.hub.counts["cancels"] += 1
                if self._status_of(account_id, str(order_id)) != "cancelled":
                    self.say(f"{brief(account_id, str(order_id))} is not, but was called cancelled")
        except (InterventionRefused, StoreError, QueueUnavailable) as error:
            operator.note("is refused:", error)
        done.set()

    def _check_replayed(self, order: ParkedOrder) -> None:
        item = self.table.items[f"ACCOUNT#{order.account_id}", f"ORDER#{order.id}"]
        parked_at = order.parking.at.isoformat() if order.parking else ""
        if item["status"]["S"] == "failed" and item["decided_at"]["S"] == parked_at:
            self.say(f"{brief(order.account_id, order.id)} was called replayed, and is parked")

    def _status_of(self, account_id: int, order_id: str) -> str:
        item = self.table.items[f"ACCOUNT#{account_id}", f"ORDER#{order_id}"]
        return str(item["status"]["S"])

    def say(self, problem: str) -> None:
        self.problems.append(problem)
        self.hub.note("CHECK", "FAILS:", problem)


def _answered(call: Callable[[], Answer]) -> Answer:
    """What the API's error handlers make of what leaves a route."""
    try:
        return call()
    except Problem as problem:
        return Answer(problem.status, detail=problem.detail)
    except StoreUnavailable as error:
        return Answer(503, detail=f"{_MAYBE}: {error}")
    except Crashed:
        raise
    except Exception as error:  # noqa: BLE001 - a client would get a 500
        return Answer(500, detail=repr(error))


def _in_simulated_time(intake: Intake[Any, Any], process: Process) -> Intake[Any, Any]:
    intake._monotonic = process.monotonic
    intake._sleep = process.sleep
    intake._random = process.hub.rng
    return intake


def _short(made: str) -> str:
    return brief("", made) if made else ""
