"""What each kind of fault does to which part of the stack."""

from collections.abc import Sequence
from random import Random

from local.processes import Process
from tests.chaos import proxy
from tests.chaos.nemesis import Effect, kill_a_child
from tests.chaos.proxy import DynamoDbProxy, TcpProxy
from tests.stack import Engines

DELAY_SECONDS = 0.15


def effects(
    engines: Engines,
    redis: TcpProxy,
    dynamodb: DynamoDbProxy,
    processes: dict[str, Process],
    random: Random,
) -> dict[tuple[str, str], Effect]:
    """Every fault by its kind and target; ``processes`` are the project's own, by target."""
    workers = [processes["worker1"], processes["worker2"]]
    sweeper = processes["sweeper"]
    found = {
        ("kill all workers", "workers"): _killed(workers),
        ("kill sweeper", "sweeper"): _killed([sweeper]),
        ("pause sweeper", "sweeper"): _paused(sweeper),
        ("kill Redis", "redis"): _engine_killed(engines.redis, redis),
        ("kill DynamoDB", "dynamodb"): _engine_killed(engines.dynamodb, dynamodb),
        ("pause Redis", "redis"): _paused(engines.redis),
        ("pause DynamoDB", "dynamodb"): _paused(engines.dynamodb),
        ("flush Redis", "redis"): Effect(engines.flush_redis),
        ("cut Redis", "redis"): Effect(redis.cut, redis.listen),
        ("cut DynamoDB", "dynamodb"): Effect(dynamodb.cut, dynamodb.listen),
        ("delay Redis", "redis"): _delayed(redis),
        ("delay DynamoDB", "dynamodb"): _delayed(dynamodb),
        ("DynamoDB throttles", "dynamodb"): _misbehaving(dynamodb, proxy.THROTTLE),
        ("DynamoDB hangs", "dynamodb"): _misbehaving(dynamodb, proxy.HANG),
        ("DynamoDB answers 500", "dynamodb"): _misbehaving(dynamodb, proxy.FAIL),
        ("DynamoDB loses answers", "dynamodb"): _misbehaving(dynamodb, proxy.LOSE),
    }
    for target in ("api1", "api2"):
        found |= _of_one(target, "API", "the API", processes[target], random)
    for target in ("worker1", "worker2"):
        found |= _of_one(target, "worker", "a worker", processes[target], random)
    return found


def _of_one(
    target: str, name: str, long_name: str, process: Process, random: Random
) -> dict[tuple[str, str], Effect]:
    return {
        (f"kill {name}", target): _killed([process]),
        (f"pause {name}", target): _paused(process),
        (f"kill a child of {long_name}", target): Effect(lambda: kill_a_child(process, random)),
    }


def _killed(processes: Sequence[Process]) -> Effect:
    dead: list[str] = []

    def begin() -> None:
        dead.extend(process.name for process in processes if not process.running)
        for process in processes:
            process.kill()

    def end() -> None:
        for process in processes:
            process.start()
        if dead:
            raise RuntimeError(f"{dead} had ended before by themselves")

    return Effect(begin, end)


def _engine_killed(engine: Process, between: TcpProxy) -> Effect:
    """The proxy refuses meanwhile, as the port of a dead server does."""

    def begin() -> None:
        engine.kill()
        between.cut()

    def end() -> None:
        engine.start()
        between.listen()

    return Effect(begin, end)


def _paused(process: Process) -> Effect:
    return Effect(process.pause, process.resume)


def _delayed(between: TcpProxy) -> Effect:
    def set_delay(seconds: float) -> None:
        between.delay_seconds = seconds

    return Effect(lambda: set_delay(DELAY_SECONDS), lambda: set_delay(0.0))


def _misbehaving(between: DynamoDbProxy, fault: str) -> Effect:
    return Effect(lambda: between.misbehave(fault), lambda: between.misbehave(None))
