"""The plan of faults is a seed's own, holds every kind, and hits nothing twice at once."""

from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from local.processes import Process
from tests.chaos.effects import effects
from tests.chaos.nemesis import (
    KINDS,
    QUIET_SECONDS,
    STORM_FAULTS,
    Effect,
    Effects,
    Fault,
    Nemesis,
    plan,
    plan_within,
)
from tests.chaos.proxy import DynamoDbProxy, Loop, TcpProxy
from tests.stack import Engines

SEEDS = range(30)
KILLS = (("kill API", "api1"), ("kill sweeper", "sweeper"))
WORKERS = ("worker1", "worker2")


def hit_by(fault: Fault) -> tuple[str, ...]:
    return WORKERS if fault.target == "workers" else (fault.target,)


def stand_ins(folder: Path) -> tuple[dict[str, Process], Effects]:
    """Processes that do nothing, and the effects on them."""
    loop = Loop()
    names = ("api1", "api2", *WORKERS, "sweeper")
    processes = {name: Process(name, ["sleep", "60"], folder / name) for name in names}
    known = effects(
        Engines(folder),
        TcpProxy(loop, 1, 2),
        DynamoDbProxy(loop, 3, 4, Random(1)),
        processes,
        Random(1),
    )
    loop.close()
    return processes, known


@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_comes_within_a_minute(seed: int) -> None:
    faults = plan_within(Random(seed), 56)
    assert {fault.kind for fault in faults} == {kind.name for kind in KINDS}
    assert max(fault.at + fault.seconds for fault in faults) < 75


def test_the_same_seed_makes_the_same_plan() -> None:
    assert plan_within(Random(1), 56) == plan_within(Random(1), 56)
    assert plan_within(Random(1), 56) != plan_within(Random(2), 56)


@pytest.mark.parametrize("seed", SEEDS)
def test_no_target_is_hit_twice_at_once(seed: int) -> None:
    free_at: dict[str, float] = {}
    for fault in islice(plan(Random(seed), QUIET_SECONDS), 200):
        for target in hit_by(fault):
            assert fault.at >= free_at.get(target, 0), fault
            free_at[target] = fault.at + fault.seconds


def test_after_each_storm_it_is_quiet() -> None:
    faults = list(islice(plan(Random(3), QUIET_SECONDS), 10 * STORM_FAULTS))
    for place in range(STORM_FAULTS, len(faults), STORM_FAULTS):
        ends = max(fault.at + fault.seconds for fault in faults[:place])
        assert faults[place].at >= ends + QUIET_SECONDS


def test_every_round_holds_every_kind_once() -> None:
    faults = list(islice(plan(Random(4), QUIET_SECONDS), 3 * len(KINDS)))
    assert set(Counter(fault.kind for fault in faults).values()) == {3}


@pytest.mark.integration  # it names the engines' programs, which have to be there
def test_there_is_an_effect_for_every_fault(tmp_path: Path) -> None:
    _, known = stand_ins(tmp_path)
    assert set(known) == {(kind.name, target) for kind in KINDS for target in kind.targets}


@pytest.mark.integration  # it names the engines' programs, which have to be there
def test_a_process_that_had_ended_by_itself_is_told_when_it_is_to_be_killed(tmp_path: Path) -> None:
    processes, known = stand_ins(tmp_path)
    nemesis = Nemesis(known)
    processes["api1"].start()

    try:
        nemesis.run(iter(Fault(0, kind, target, 0.01) for kind, target in KILLS), 0.0, lambda: True)
        nemesis.finish()
        assert all(processes[target].running for _, target in KILLS)
    finally:
        for process in processes.values():
            process.kill()
    assert len(nemesis.errors) == 1
    assert "sweeper" in nemesis.errors[0]


def test_a_fault_ends_what_it_began_and_one_that_fails_is_told() -> None:
    told: list[str] = []

    def fail() -> None:
        raise OSError("no such engine")

    paused = Effect(lambda: told.append("begin"), lambda: told.append("end"))
    nemesis = Nemesis({("pause Redis", "redis"): paused, ("kill sweeper", "sweeper"): Effect(fail)})
    faults = [Fault(0, "pause Redis", "redis", 0.01), Fault(0, "kill sweeper", "sweeper", 0.01)]

    nemesis.run(iter(faults), 0.0, lambda: True)
    nemesis.finish()

    assert told == ["begin", "end"]
    assert {window.kind for window in nemesis.windows} == {"pause Redis", "kill sweeper"}
    assert nemesis.errors == ["kill sweeper on sweeper: OSError('no such engine')"]
