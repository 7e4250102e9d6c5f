"""The engines' programs are found, or the message says the way out."""

import platform
from pathlib import Path

import pytest

from local import engines
from local.engines import EngineMissingError
from local.ports import free_port, is_free


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine for which no package has a program, with an empty PATH."""
    monkeypatch.setattr(platform, "system", lambda: "Plan9")
    monkeypatch.setenv("PATH", "")


def test_without_a_redis_program_the_message_names_the_setting(elsewhere: None) -> None:
    with pytest.raises(EngineMissingError, match="Set REDIS_URL to any Redis"):
        engines.redis_program()


def test_without_a_dynamodb_program_the_message_names_the_setting(elsewhere: None) -> None:
    with pytest.raises(EngineMissingError, match="Set AWS_ENDPOINT_URL_DYNAMODB to any DynamoDB"):
        engines.dynamodb_program()


@pytest.mark.parametrize("name", ["valkey-server", "redis-server"])
def test_a_redis_on_path_serves_where_the_package_has_none(
    elsewhere: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / name
    program.touch(mode=0o755)

    assert engines.redis_program() == program


def test_a_dynoxide_on_path_serves_where_the_package_has_none(
    elsewhere: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "dynoxide"
    program.touch(mode=0o755)

    assert engines.dynamodb_program() == program


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine on which DynamoDB Local was fetched and java is installed."""
    libraries, programs = tmp_path / "lib", tmp_path / "bin"
    for file in (libraries / "DynamoDBLocal-3.3.1.jar", programs / "java"):
        file.parent.mkdir()
        file.touch(mode=0o755)
    monkeypatch.setattr(engines, "_DYNAMODB_LOCAL", libraries)
    monkeypatch.setenv("PATH", str(programs))
    return tmp_path


def test_dynamodb_local_runs_in_bounds_and_reports_to_nobody(fetched: Path) -> None:
    data = fetched / "data"

    engine = engines.dynamodb_local_engine(8001, data)

    assert engine.command[0] == str(fetched / "bin" / "java")
    assert {"-Xmx512m", "-disableTelemetry", "-sharedDb"} <= set(engine.command)
    assert f"-Djava.library.path={fetched / 'lib'}" in engine.command
    assert engine.command[-4:] == ["-port", "8001", "-dbPath", str(data)]
    assert data.is_dir()


def test_a_transaction_in_dynamodb_locals_journal_is_not_saved_yet(fetched: Path) -> None:
    engine = engines.dynamodb_local_engine(8001, fetched / "data")
    journal = fetched / "data" / "shared-local-instance.db-journal"

    assert engine.is_saved()
    journal.touch()
    assert not engine.is_saved()
    journal.unlink()
    assert engine.is_saved()


def test_dynamodb_local_that_was_not_fetched_is_missed_with_the_way_to_fetch_it(
    fetched: Path,
) -> None:
    next((fetched / "lib").iterdir()).unlink()

    with pytest.raises(EngineMissingError, match="`make dynamodb-local` fetches it"):
        engines.dynamodb_local_engine(8001, fetched / "data")


def test_dynamodb_local_without_java_is_missed_with_the_version_that_it_needs(
    fetched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(EngineMissingError, match="needs Java 17 or newer"):
        engines.dynamodb_local_engine(8001, fetched / "data")


def test_the_embedded_dynamodb_has_saved_whatever_it_acknowledged(
    elsewhere: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "dynoxide").touch(mode=0o755)

    assert engines.dynamodb_engine(8001, tmp_path / "data").is_saved()


def test_where_nothing_listens_no_engine_answers() -> None:
    port = free_port()

    assert is_free("127.0.0.1", port)
    assert not engines.redis_answers(port)
    assert not engines.dynamodb_answers(port)
