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


def test_where_nothing_listens_no_engine_answers() -> None:
    port = free_port()

    assert is_free("127.0.0.1", port)
    assert not engines.redis_answers(port)
    assert not engines.dynamodb_answers(port)
