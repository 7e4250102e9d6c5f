"""The environments' settings, the bundles that read them, and the processes fit together."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from api import gunicorn_conf
from api.streams import HEARTBEAT_SECONDS
from shared.settings import Settings
from tests.unit.deploy.templates import AWS, Json, environment, template
from worker.app import STOP_SECONDS_MAX

VARIABLES = "aws:elasticbeanstalk:application:environment"
SECRETS = "aws:elasticbeanstalk:application:environmentsecrets"
PROCESS = "aws:elasticbeanstalk:environment:process:default"

LOGICAL_NAMES = {"api": "ApiEnvironment", "worker": "WorkerEnvironment"}
OF_COMPOSE = {"api": {"API_IMAGE", "LOG_GROUP"}, "worker": {"WORKER_IMAGE", "LOG_GROUP"}}
OF_BOTO = {"AWS_DEFAULT_REGION"}
WORKER_COMMANDS = {"worker", "sweeper", "flower"}

kinds = pytest.mark.parametrize("kind", LOGICAL_NAMES)


def compose(kind: str) -> dict[str, Json]:
    """The services of a bundle."""
    text = (AWS / "beanstalk" / kind / "docker-compose.yml").read_text()
    services: dict[str, Json] = yaml.safe_load(text)["services"]
    return services


def variables(kind: str) -> dict[str, Any]:
    """What an environment's processes find in their environment."""
    settings = environment(LOGICAL_NAMES[kind])
    return {
        name: value for (space, name), value in settings.items() if space in (VARIABLES, SECRETS)
    }


def seconds(text: str) -> float:
    assert text.endswith("s")
    return float(text.removesuffix("s"))


@kinds
def test_every_variable_is_a_setting_of_the_code_or_the_bundle_s_own(kind: str) -> None:
    known = {name.upper() for name in Settings.model_fields} | OF_BOTO | OF_COMPOSE[kind]

    assert set(variables(kind)) - known == set()


@kinds
def test_every_variable_that_a_bundle_names_is_set(kind: str) -> None:
    text = (AWS / "beanstalk" / kind / "docker-compose.yml").read_text()
    named = set(re.findall(r"(?<!\$)\$\{(\w+)", text))

    assert named
    assert named - set(variables(kind)) == set()


def test_the_settings_that_the_templates_write_down_are_possible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defaults = {
        f"MARKET_{name}": template("main")["Parameters"][f"Market{name.title()}"]["Default"]
        for name in ("OPEN", "CLOSE", "TZ", "DAYS")
    }
    written = {
        name: value
        for kind in LOGICAL_NAMES
        for name, value in variables(kind).items()
        if isinstance(value, str)
    }
    for name, value in (defaults | written).items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    assert settings.market == Settings.model_construct().market
    assert settings.api_host == "0.0.0.0"
    assert settings.access_keys == "required"


def test_the_api_drains_for_longer_than_the_load_balancer_needs_to_see_it() -> None:
    settings = environment("ApiEnvironment")
    interval, timeout, failures = (
        int(settings[PROCESS, name])
        for name in ("HealthCheckInterval", "HealthCheckTimeout", "UnhealthyThresholdCount")
    )

    assert settings[PROCESS, "HealthCheckPath"] == "/readyz"
    assert timeout < interval
    assert float(variables("api")["DRAIN_SECONDS"]) > interval * failures


def test_the_load_balancer_lets_go_of_idle_connections_before_the_api_does() -> None:
    idle = int(environment("ApiEnvironment")["aws:elbv2:loadbalancer", "IdleTimeout"])

    assert idle < gunicorn_conf.keepalive


def test_the_load_balancer_waits_for_longer_than_any_answer_takes() -> None:
    idle = int(environment("ApiEnvironment")["aws:elbv2:loadbalancer", "IdleTimeout"])
    limits = {
        name: field.default
        for name, field in Settings.model_fields.items()
        if name.endswith("seconds_max")
    }

    # A stream lasts for longer, and is never silent for as long.
    del limits["stream_seconds_max"]
    assert idle > HEARTBEAT_SECONDS
    assert limits["accept_seconds_max"]
    assert {name: limit for name, limit in limits.items() if limit >= idle} == {}


def test_containers_have_the_time_that_their_end_takes() -> None:
    drain = float(variables("api")["DRAIN_SECONDS"])
    worker = compose("worker")["worker"]

    assert seconds(compose("api")["api"]["stop_grace_period"]) >= drain + 11
    assert seconds(worker["stop_grace_period"]) > STOP_SECONDS_MAX + 2


@kinds
def test_environments_keep_one_instance_in_each_zone_while_they_change(kind: str) -> None:
    settings = environment(LOGICAL_NAMES[kind])
    rolling = "aws:autoscaling:updatepolicy:rollingupdate"

    assert int(settings["aws:autoscaling:asg", "MinSize"]) >= 2
    assert settings[rolling, "RollingUpdateEnabled"] == "true"
    assert int(settings[rolling, "MinInstancesInService"]) >= 2
    assert settings["aws:elasticbeanstalk:command", "DeploymentPolicy"].startswith("Rolling")
    assert settings["aws:elasticbeanstalk:managedactions", "ManagedActionsEnabled"] == "true"


@kinds
def test_containers_start_again_may_do_little_and_log_to_their_group(kind: str) -> None:
    for service in compose(kind).values():
        assert service["restart"] == "always"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["env_file"] == ".env"
        assert "healthcheck" in service
        assert service["logging"]["options"]["awslogs-group"] == "${LOG_GROUP:?}"


def test_the_worker_s_image_is_started_as_a_worker_and_as_a_sweeper() -> None:
    services = compose("worker")

    assert {name: service["command"] for name, service in services.items()} == {
        "worker": ["worker"],
        "sweeper": ["sweeper"],
    }
    assert {service["image"] for service in services.values()} == {"${WORKER_IMAGE:?}"}


HOOKS = sorted((AWS / "beanstalk").rglob("*.sh"))


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: str(hook.relative_to(AWS / "beanstalk")))
def test_hooks_are_shell_may_be_run_and_log_in_for_their_own_image(hook: Path) -> None:
    kind = hook.relative_to(AWS / "beanstalk").parts[0]

    assert hook.stat().st_mode & 0o111
    assert subprocess.run(["/bin/sh", "-n", str(hook)], check=False).returncode == 0
    assert f"{kind.upper()}_IMAGE" in hook.read_text()


@kinds
def test_a_changed_setting_logs_in_like_a_new_version(kind: str) -> None:
    platform = AWS / "beanstalk" / kind / ".platform"
    versions, settings = (
        {path.name: path.read_text() for path in (platform / place / "prebuild").iterdir()}
        for place in ("hooks", "confighooks")
    )

    assert versions
    assert versions == settings


@kinds
def test_health_is_reported_in_detail(kind: str) -> None:
    document = environment(LOGICAL_NAMES[kind])[
        "aws:elasticbeanstalk:healthreporting:system", "ConfigDocument"
    ]

    assert "InstancesSevere" in json.loads(document)["CloudWatchMetrics"]["Environment"]


def test_worker_and_sweeper_show_their_metrics_to_their_instance_alone() -> None:
    environments = [service["environment"] for service in compose("worker").values()]

    assert {one["METRICS_HOST"] for one in environments} == {"127.0.0.1"}
    # Both are on the host's network.
    assert len({one["METRICS_PORT"] for one in environments}) == 2
