"""What a seed decides before anything happens: who takes part, and what will go wrong."""

from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.simulation.redis import Habits
from tests.simulation.weather import BROKER, CACHE, STORE

STORM: Final = "storm"
"""Everything goes wrong."""
WORKERS_DIE: Final = "workers die"
"""No sweeper, and a broker that keeps what it was given: redelivery alone has to do."""
CALM: Final = "calm"
"""Nothing fails; messages are repeated and overtake each other, accounts are hot."""
OUTAGES: Final = "outages"
"""Whole services are away for a while, Redis forgets all."""
OPERATOR: Final = "operator"
"""Orders are parked soon, and an operator replays and cancels."""

KINDS: Final = (STORM, WORKERS_DIE, CALM, OUTAGES, OPERATOR)
_WEIGHTS: Final = (40, 20, 12, 16, 12)
_LARGE_SHARE: Final = 0.03
_LONG_SHARE: Final = 0.1


@dataclass(slots=True)
class Scenario:
    """One schedule's cast and weather; times in seconds."""

    kind: str = CALM
    apis: int = 1
    workers: int = 1
    sweepers: int = 1
    accounts: int = 1
    clients: int = 2
    orders: int = 6
    span: float = 4.0
    trouble: dict[str, float] = field(default_factory=dict)
    crash: dict[str, float] = field(default_factory=dict)
    kills: int = 0
    outages: list[tuple[str, float, float]] = field(default_factory=list)
    flushes: list[tuple[str, float]] = field(default_factory=list)
    habits: Habits = field(default_factory=Habits)
    recover_after: float = 2.0
    sweep_every: float = 1.0
    attempts_max: int = 5
    index_lag: float = 0.1
    landing: float = 0.0
    """How long at most a committed transaction shows itself in parts."""
    page_items_max: int = 1_000
    keeps_tokens: bool = True
    takes_turns: bool = True
    answers_lost: float = 0.0
    """Share of the API's answers that do not reach their client."""
    unprocessed: float = 0.0
    slow: float = 0.04
    skew: float = 0.0
    lost_children: bool = False
    opens_in_trouble: bool = False
    interventions: int = 0
    cancels: float = 0.0
    """Share of their orders that clients cancel."""
    twins: float = 0.0
    """Share of the requests with a key that are sent twice at once."""
    bulks: float = 0.0
    """Share of the requests that bring many orders."""
    followers: int = 0
    poison: float = 0.0
    """Share of the orders that kill the process that decides them, or on which the rules fail."""
    mends: bool = True
    """They can be decided once the faults are over."""


def draw(rng: Random, kind: str | None = None) -> Scenario:
    """Draw a scenario, of ``kind`` if given."""
    # Drawn in any case, so that the rest does not depend on whether a kind was asked for.
    drawn = rng.choices(KINDS, _WEIGHTS)[0]
    scenario = Scenario(kind=kind or drawn)
    _draw_cast(scenario, rng)
    shape = {
        STORM: _storm,
        WORKERS_DIE: _workers_die,
        CALM: _calm,
        OUTAGES: _outages,
        OPERATOR: _operator,
    }
    shape[scenario.kind](scenario, rng)
    return scenario


def _draw_cast(scenario: Scenario, rng: Random) -> None:
    is_large = rng.random() < _LARGE_SHARE
    scenario.apis = rng.randint(1, 2)
    scenario.workers = rng.randint(1, 3)
    scenario.accounts = rng.choice((1, 1, 2, 3))
    scenario.clients = rng.randint(1, 3)
    scenario.orders = rng.randint(20, 60) if is_large else rng.randint(2, 8)
    scenario.span = rng.uniform(2.0, 4.0) + scenario.orders / 20
    scenario.recover_after = rng.uniform(1.0, 3.0)
    scenario.sweep_every = rng.uniform(0.7, 2.0)
    scenario.index_lag = rng.choice((0.0, 0.1, 1.0))
    scenario.page_items_max = rng.choice((1, 3, 1_000, 1_000))
    scenario.keeps_tokens = rng.random() < 0.8
    # Where nothing is known of tokens, nothing is known of transactions on their way.
    landing = rng.choice((0.0, 0.005, 0.05))
    scenario.landing = landing if scenario.keeps_tokens else 0.0
    scenario.twins = rng.choice((0.0, 0.2))
    scenario.bulks = rng.choice((0.0, 0.0, 0.0, 0.3))
    scenario.followers = rng.choice((0, 0, 1))
    # Without them every meeting at a busy account is a conflict.
    scenario.takes_turns = rng.random() < 0.5
    scenario.slow = rng.choice((0.0, 0.02, 0.1, 0.3))
    scenario.skew = rng.choice((0.0, 0.01, 0.5))


def _storm(scenario: Scenario, rng: Random) -> None:
    scenario.sweepers = rng.randint(1, 2)
    scenario.trouble = {name: rng.choice((0.0, 0.05, 0.2)) for name in (STORE, BROKER, CACHE)}
    share = rng.choice((0.0, 0.01, 0.04))
    scenario.crash = {"api": share, "worker": share, "sweeper": share}
    scenario.kills = rng.randint(0, 3)
    scenario.habits = Habits(
        loses=rng.choice((0.0, 0.1, 0.4)),
        repeats=rng.choice((0.0, 0.2)),
        delays=rng.choice((0.0, 0.2)),
        reorders=0.3,
        visibility_seconds=rng.uniform(0.5, 5.0),
    )
    scenario.answers_lost = rng.choice((0.0, 0.05, 0.2))
    scenario.unprocessed = rng.choice((0.0, 0.1))
    scenario.lost_children = rng.random() < 0.3
    scenario.opens_in_trouble = rng.random() < 0.4
    scenario.cancels = rng.choice((0.0, 0.0, 0.3))


def _workers_die(scenario: Scenario, rng: Random) -> None:
    scenario.sweepers = 0
    scenario.trouble = {STORE: rng.choice((0.0, 0.05)), CACHE: rng.choice((0.0, 0.2))}
    scenario.answers_lost = rng.choice((0.05, 0.3))
    scenario.cancels = rng.choice((0.0, 0.3))
    scenario.unprocessed = rng.choice((0.0, 0.1))
    scenario.crash = {"worker": rng.choice((0.02, 0.08, 0.15))}
    scenario.habits = Habits(
        repeats=rng.choice((0.0, 0.2)),
        delays=rng.choice((0.0, 0.2)),
        reorders=0.3,
        visibility_seconds=rng.uniform(0.5, 3.0),
    )


def _calm(scenario: Scenario, rng: Random) -> None:
    scenario.workers = rng.randint(2, 4)
    scenario.clients = rng.randint(2, 4)
    scenario.accounts = rng.randint(1, 2)
    scenario.span /= 2
    scenario.habits = Habits(repeats=0.3, delays=0.2, reorders=0.5)
    scenario.cancels = rng.choice((0.0, 0.5))


def _outages(scenario: Scenario, rng: Random) -> None:
    for _ in range(rng.randint(1, 3)):
        start = rng.uniform(0.0, scenario.span)
        away = (rng.choice((STORE, BROKER, CACHE)), start, start + rng.uniform(0.1, 2.0))
        scenario.outages.append(away)
    if rng.random() < _LONG_SHARE:
        # Longer than a worker tries one message.
        scenario.outages.append((STORE, scenario.span / 2, scenario.span / 2 + 25.0))
        scenario.span += 25.0
    for _ in range(rng.randint(0, 2)):
        what = rng.choice((BROKER, CACHE))
        scenario.flushes.append((what, rng.uniform(0.0, scenario.span)))
    scenario.kills = rng.randint(0, 2)
    scenario.habits = Habits(reorders=0.1)


def _operator(scenario: Scenario, rng: Random) -> None:
    scenario.attempts_max = rng.randint(1, 2)
    scenario.followers = 1
    scenario.interventions = rng.randint(2, 12)
    scenario.workers = rng.randint(1, 2)
    scenario.recover_after = rng.uniform(0.3, 1.0)
    scenario.sweep_every = rng.uniform(0.3, 0.8)
    scenario.span += 2.0
    scenario.trouble = {STORE: rng.choice((0.0, 0.05, 0.25))}
    scenario.poison = rng.choice((0.0, 0.3))
    scenario.mends = rng.random() < 0.6
    scenario.cancels = rng.choice((0.0, 0.3))
    scenario.crash = {"worker": rng.choice((0.05, 0.2)), "operator": 0.02}
    scenario.habits = Habits(loses=0.2, repeats=0.2, reorders=0.3, visibility_seconds=1.0)
