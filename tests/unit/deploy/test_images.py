"""Dockerfiles, what starts in the images, docker-compose.yml and its proxy, without an engine."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from api import arriving, gunicorn_conf, streams
from local import commands
from shared.settings import Settings
from worker.app import STOP_SECONDS_MAX

ROOT = Path(__file__).resolve().parents[3]
START = ROOT / "deploy" / "images" / "start"
COMPOSE = ROOT / "docker-compose.yml"
PROXY = ROOT / "deploy" / "compose" / "haproxy.cfg"
KINDS = ("api", "worker")

COPIED = {
    "api": {"requirements.txt", "deploy/images/health.py", "shared/", "api/"},
    "worker": {
        "requirements.txt",
        "deploy/images/health.py",
        "deploy/images/start",
        "shared/",
        "worker/",
        "ops/",
    },
}
RUNS_ONCE = {"table", "ops"}
WRITES = {"datadog"}
"""Its agent writes its own configuration when it starts."""
PROFILES = {
    "ops": ["ops"],
    "prometheus": ["monitoring"],
    "grafana": ["monitoring"],
    "datadog": ["datadog"],
}
OF_OUR_IMAGES = {"api", "worker", "sweeper", "flower", "table", "ops"}
OF_LIBRARIES = {
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "FLOWER_BASIC_AUTH",
    "FLOWER_READ_ONLY",
}

kinds = pytest.mark.parametrize("kind", KINDS)

Instruction = tuple[str, str]


def instructions(kind: str) -> list[Instruction]:
    """Each instruction of a Dockerfile with its text; continued lines are one."""
    text = (ROOT / f"Dockerfile.{kind}").read_text()
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def stages(kind: str) -> list[list[Instruction]]:
    """The instructions, stage by stage."""
    found: list[list[Instruction]] = []
    for one in instructions(kind):
        if one[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(one)
    return found


def texts(stage: list[Instruction], name: str) -> list[str]:
    return [text for found, text in stage if found == name]


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def is_pinned(image: str) -> bool:
    """The tag names a version to its last number."""
    return bool(re.search(r":v?\d+\.\d+\.\d+(-[a-z0-9.]+)*$", image))


each_service = pytest.mark.parametrize("name", services())


# Dockerfiles


@pytest.mark.parametrize(
    ("image", "answer"),
    [
        ("redis:8.2.10-alpine", True),
        ("amazon/dynamodb-local:3.3.1", True),
        ("prom/prometheus:v3.5.0", True),
        ("prom/prometheus:v3", False),
        ("redis:latest", False),
        ("redis", False),
        ("redis:8", False),
        ("redis:8-alpine", False),
    ],
)
def test_a_pinned_image_names_a_whole_version(image: str, answer: bool) -> None:
    assert is_pinned(image) is answer


@kinds
def test_an_image_stands_on_one_pinned_base(kind: str) -> None:
    base = dict(text.split("=", 1) for text in texts(instructions(kind), "ARG") if "=" in text)
    bases = {stage[0][1].split()[0] for stage in stages(kind)}

    assert is_pinned(base["PYTHON_IMAGE"])
    assert bases == {"${PYTHON_IMAGE}", "packages"}


def test_both_images_begin_alike() -> None:
    assert stages("api")[0] == stages("worker")[0]


def test_the_base_is_the_python_that_the_project_promises() -> None:
    base = next(text for text in texts(instructions("api"), "ARG") if "PYTHON_IMAGE" in text)
    version = re.search(r"python:(\d+\.\d+)\.", base)
    project = (ROOT / "pyproject.toml").read_text()

    assert version
    assert f'requires-python = ">={version[1]}"' in project


@kinds
def test_the_last_stage_installs_no_python_package_and_keeps_no_pip(kind: str) -> None:
    runs = " ".join(texts(stages(kind)[-1], "RUN"))

    assert "pip install" not in runs
    assert "'pip', 'setuptools', 'wheel', 'ensurepip'" in runs
    assert "rm -rf /var/lib/apt/lists/*" in runs


@kinds
def test_an_image_runs_as_a_user_by_number_that_is_not_root(kind: str) -> None:
    (user,) = texts(stages(kind)[-1], "USER")

    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)


@kinds
def test_processes_start_without_a_shell_under_an_init(kind: str) -> None:
    last = stages(kind)[-1]
    (entry,), (command,) = texts(last, "ENTRYPOINT"), texts(last, "CMD")

    assert json.loads(entry)[0] == "tini"
    assert json.loads(command)


@kinds
def test_an_image_has_a_health_check(kind: str) -> None:
    (check,) = texts(stages(kind)[-1], "HEALTHCHECK")

    assert json.loads(check[check.index("[") :]) == ["python", "health.py"]


@kinds
def test_an_image_says_what_it_is(kind: str) -> None:
    labels = " ".join(texts(stages(kind)[-1], "LABEL"))

    for name in ("title", "description", "version", "revision"):
        assert f"org.opencontainers.image.{name}=" in labels


@kinds
def test_an_image_holds_its_own_package_and_shared_alone(kind: str) -> None:
    copied = {
        source
        for text in texts(instructions(kind), "COPY")
        if not text.startswith("--from")
        for source in text.split()[:-1]
    }
    of_stages = texts(stages(kind)[-1], "COPY")

    assert copied == COPIED[kind]
    assert of_stages == ["--from=packages /opt/venv /opt/venv", "--from=code /app /app"]


@kinds
def test_the_api_s_image_starts_what_make_run_starts(kind: str) -> None:
    (command,) = texts(stages(kind)[-1], "CMD")
    expected = {"api": ["python", *commands.api()[1:]], "worker": ["worker"]}

    assert json.loads(command) == expected[kind]


def test_a_build_is_sent_what_it_copies_and_nothing_else() -> None:
    patterns = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]

    assert patterns[0] == "*"
    allowed = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    copied = set().union(*COPIED.values())
    assert {path for path in copied if not any(map(path.startswith, allowed))} == set()
    assert {path for path in allowed if not any(c.startswith(path) for c in copied)} == set()
    assert any(fnmatch("api/__pycache__/", pattern) for pattern in patterns[1:])


# What the worker's image starts


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the script with a `python` that only says what it was asked for."""
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -c ] && exec {sys.executable} "$@"\n'
        'printf "%s\\n" "$@"\n'
        'echo "login $FLOWER_BASIC_AUTH" >&2\n'
    )
    python.chmod(0o755)

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["/bin/sh", str(START), *arguments],
            env={"PATH": path, **variables},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    return run


Start = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], commands.worker("worker")),
        (["worker"], commands.worker("worker")),
        (["sweeper"], commands.sweeper()),
        (["create-table"], commands.create_table()),
        (["ops", "parked", "show", "1/a b"], commands.ops("parked", "show", "1/a b")),
    ],
)
def test_a_name_starts_what_make_run_starts(
    start: Start, arguments: list[str], expected: list[str]
) -> None:
    done = start(*arguments)

    assert done.returncode == 0
    assert done.stdout.splitlines() == expected[1:]


def test_flower_listens_to_all_where_it_has_a_login(start: Start) -> None:
    done = start("flower", FLOWER_BASIC_AUTH="someone:a secret")

    expected = [
        "--address=0.0.0.0" if argument.startswith("--address") else argument
        for argument in commands.flower(5555)[1:]
    ]
    assert done.stdout.splitlines() == expected
    assert "login someone:a secret" in done.stderr


@pytest.mark.parametrize("login", [None, "", "someone", "someone:", ":secret"])
def test_flower_does_not_start_without_a_user_and_a_password(
    start: Start, login: str | None
) -> None:
    done = start("flower", **({} if login is None else {"FLOWER_BASIC_AUTH": login}))

    assert done.returncode == 2
    assert done.stdout == ""
    assert "FLOWER_BASIC_AUTH=user:password" in done.stderr


def test_flower_needs_no_login_on_loopback(start: Start) -> None:
    done = start("flower", FLOWER_ADDRESS="127.0.0.1")

    assert done.returncode == 0
    assert "--address=127.0.0.1" in done.stdout.splitlines()


def test_a_login_that_flower_s_log_tells_is_another_at_each_start(start: Start) -> None:
    said = [start("flower", FLOWER_BASIC_AUTH="generated").stderr for _ in range(2)]
    told = [re.search(r"operator, password (\S{20,})\n", text) for text in said]

    assert told[0]
    assert told[1]
    assert told[0][1] != told[1][1]
    assert f"login operator:{told[0][1]}" in said[0]


def test_an_unknown_name_starts_nothing(start: Start) -> None:
    done = start("wroker")

    assert done.returncode == 2
    assert done.stdout == ""
    assert "create-table" in done.stderr


# The compose file


@each_service
def test_a_service_s_image_is_pinned_or_our_own(name: str) -> None:
    image = services()[name]["image"]
    ours = {
        f"${{{kind.upper()}_IMAGE:-order-processor-{kind}:dev}}": f"Dockerfile.{kind}"
        for kind in KINDS
    }

    if name in OF_OUR_IMAGES:
        assert services()[name]["build"] == {"context": ".", "dockerfile": ours[image]}
    else:
        assert is_pinned(image)


@each_service
def test_a_service_is_confined_and_bounded(name: str) -> None:
    service = services()[name]

    assert service["read_only"] is (name not in WRITES)
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]


def test_one_service_alone_is_root_and_has_one_right() -> None:
    root = {name for name, service in services().items() if service.get("user") == "root"}
    rights = {
        name: service["cap_add"] for name, service in services().items() if "cap_add" in service
    }

    assert root == {"dynamodb"}
    assert rights == {"dynamodb": ["DAC_OVERRIDE"]}


@each_service
def test_a_service_that_ends_is_started_again_unless_it_runs_once(name: str) -> None:
    assert services()[name]["restart"] == ("no" if name in RUNS_ONCE else "unless-stopped")


@each_service
def test_a_service_has_a_health_check(name: str) -> None:
    test = services()[name].get("healthcheck", {}).get("test")

    # Our images bring their own.
    assert (test is None) is (name in OF_OUR_IMAGES)


def test_proxy_flower_and_grafana_alone_are_published_and_to_this_machine() -> None:
    ports = {name: service["ports"] for name, service in services().items() if "ports" in service}

    assert ports == {
        "proxy": ["${PUBLISH_ADDRESS:-127.0.0.1}:${API_PORT:-8000}:8080"],
        "flower": ["127.0.0.1:${FLOWER_PORT:-5555}:5555"],
        "grafana": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"],
    }


def test_store_broker_and_cache_are_on_a_network_that_ends_here() -> None:
    networks = yaml.safe_load(COMPOSE.read_text())["networks"]

    assert networks["back"]["internal"] is True
    assert networks["front"]["internal"] is True
    for name in ("dynamodb", "broker", "cache", "worker", "sweeper", "table", "ops"):
        assert services()[name]["networks"] == ["back"]
    assert {name for name, s in services().items() if "front" in s["networks"]} == {"proxy", "api"}


def test_the_api_believes_the_proxy_s_network_and_no_other() -> None:
    front = yaml.safe_load(COMPOSE.read_text())["networks"]["front"]

    assert front["ipam"]["config"] == [
        {"subnet": services()["api"]["environment"]["TRUSTED_PROXIES"]}
    ]


def test_two_apis_are_kept_up() -> None:
    assert services()["api"]["scale"] == 2


@pytest.mark.parametrize("name", sorted(OF_OUR_IMAGES))
def test_every_variable_of_our_processes_is_known(name: str) -> None:
    settings = {field.upper() for field in Settings.model_fields}

    assert set(services()[name]["environment"]) - settings - OF_LIBRARIES == set()


def test_every_setting_reaches_a_process() -> None:
    passed = set().union(*(services()[name]["environment"] for name in OF_OUR_IMAGES))

    assert {field.upper() for field in Settings.model_fields} - passed == set()


def test_nobody_gets_in_without_a_key_unless_it_is_said_three_times() -> None:
    environment = services()["api"]["environment"]

    for name in (
        "ACCESS_KEYS",
        "OPEN_TO_EVERYONE_WITHOUT_KEYS",
        "ANYONE_MAY_TRADE_AND_READ_ALL_ACCOUNTS",
    ):
        assert environment[name] is None


def test_processes_have_the_time_that_their_end_takes() -> None:
    def grace(name: str) -> float:
        return float(services()[name]["stop_grace_period"].removesuffix("s"))

    drain = float(services()["api"]["environment"]["DRAIN_SECONDS"])

    assert grace("api") >= drain + 11
    assert grace("worker") > STOP_SECONDS_MAX + 2


def options(name: str) -> dict[str, str]:
    command = services()[name]["command"][1:]
    return dict(zip(command[::2], command[1::2], strict=True))


def test_the_broker_forgets_nothing_and_the_cache_may() -> None:
    broker, cache = options("broker"), options("cache")

    assert (broker["--appendonly"], broker["--maxmemory-policy"]) == ("yes", "noeviction")
    assert services()["broker"]["volumes"] == ["broker:/data"]
    assert (cache["--appendonly"], cache["--maxmemory-policy"]) == ("no", "allkeys-lru")
    assert "volumes" not in services()["cache"]


def test_dynamodb_local_is_the_version_of_the_tests() -> None:
    pom = (ROOT / "local" / "dynamodb-local" / "pom.xml").read_text()
    version = re.search(r"<artifactId>DynamoDBLocal</artifactId>\s*<version>([\d.]+)", pom)

    assert version
    assert services()["dynamodb"]["image"] == f"amazon/dynamodb-local:{version[1]}"


# The profiles


def mounts(name: str) -> dict[str, str]:
    """Where each file or folder of this machine is in a container; all are read-only."""
    found = {}
    for volume in services()[name]["volumes"]:
        if isinstance(volume, dict):
            assert volume["read_only"] is True
            found[volume["target"]] = volume["source"]
        elif volume.startswith("."):
            source, target, mode = volume.split(":")
            assert mode == "ro"
            found[target] = source
    return found


def refusal(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The service's entry point, up to what it would become."""
    script = services()[name]["entrypoint"][2].replace("$$", "$")
    return subprocess.run(
        ["/bin/sh", "-c", re.sub(r"exec \S+$", "echo started", script)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_up_alone_starts_no_profile() -> None:
    found = {name: s["profiles"] for name, s in services().items() if "profiles" in s}

    assert found == PROFILES


@pytest.mark.parametrize("name", ["prometheus", "grafana", "datadog"])
def test_what_a_profile_mounts_is_there_and_no_socket_of_docker_s(name: str) -> None:
    sources = [source for source in mounts(name).values() if source.startswith("./")]

    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert "docker.sock" not in str(services()[name])


@pytest.mark.parametrize(
    ("name", "variable"),
    [("grafana", "GF_SECURITY_ADMIN_PASSWORD"), ("datadog", "DD_API_KEY")],
)
def test_what_needs_a_secret_does_not_start_without(name: str, variable: str) -> None:
    assert variable in services()[name]["environment"]
    for variables in ({}, {variable: ""}):
        refused = refusal(name, **variables)
        assert refused.returncode != 0
        assert "started" not in refused.stdout
    assert refusal(name, **{variable: "secret"}).stdout == "started\n"


def test_grafana_lets_nobody_in_without_a_login() -> None:
    environment = services()["grafana"]["environment"]

    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert environment["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_PASSWORD:-}"


def test_grafana_reaches_prometheus_and_none_of_our_services() -> None:
    networks = yaml.safe_load(COMPOSE.read_text())["networks"]
    source = ROOT / "deploy" / "grafana" / "provisioning" / "datasources" / "prometheus.yml"

    assert services()["grafana"]["networks"] == ["edge", "figures"]
    assert services()["prometheus"]["networks"] == ["back", "figures"]
    assert networks["figures"]["internal"] is True
    assert yaml.safe_load(source.read_text())["datasources"][0]["url"] == "http://prometheus:9090"


def test_prometheus_reads_the_operator_s_key_where_it_is_mounted() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    key = jobs["orders-api"]["authorization"]["credentials_file"]

    assert mounts("prometheus")[key].startswith("${OPERATOR_KEY_FILE:-")


def test_prometheus_and_datadog_look_where_the_processes_show_their_figures() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    asked = {
        (one["names"][0], one["port"])
        for job in config["scrape_configs"]
        for one in job["dns_sd_configs"]
    }
    datadog = yaml.safe_load((ROOT / "deploy" / "datadog" / "openmetrics.yaml").read_text())
    endpoints = {one["openmetrics_endpoint"] for one in datadog["instances"]}
    shown = {("api", int(services()["api"]["environment"]["API_PORT"]))} | {
        (name, int(services()[name]["environment"]["METRICS_PORT"]))
        for name in ("worker", "sweeper")
    }

    assert asked == shown
    assert endpoints == {f"http://{name}:{port}/metrics" for name, port in shown}


def test_datadog_reads_the_operator_s_key_where_it_is_mounted() -> None:
    datadog = yaml.safe_load((ROOT / "deploy" / "datadog" / "openmetrics.yaml").read_text())
    tokens = [one["auth_token"] for one in datadog["instances"] if "auth_token" in one]

    assert len(tokens) == 1
    assert mounts("datadog")[tokens[0]["reader"]["path"]].startswith("${OPERATOR_KEY_FILE:-")


# The proxy


def setting(name: str) -> str:
    found = re.findall(rf"^ *{name} +(.+)$", PROXY.read_text(), re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def seconds(text: str) -> float:
    return float(text.removesuffix("ms")) / 1000 if text.endswith("ms") else float(text[:-1])


def server_checks() -> Iterator[tuple[str, str]]:
    words = setting("default-server").split()
    yield from zip(words[::2], words[1::2], strict=True)


def test_the_proxy_sees_that_an_api_drains_before_it_closes() -> None:
    checks = dict(server_checks())
    longest = seconds(checks["inter"]) + int(checks["fall"]) * seconds(checks["fastinter"])
    drain = float(services()["api"]["environment"]["DRAIN_SECONDS"])

    assert longest < drain
    assert "uri /readyz" in setting("http-check send")


def test_the_proxy_is_more_patient_than_any_answer_is_slow() -> None:
    limit = seconds(setting("timeout server"))
    slowest = [
        field.default
        for name, field in Settings.model_fields.items()
        # A stream is as long as this, and says something all the while.
        if name.endswith("seconds_max") and name != "stream_seconds_max"
    ]

    assert limit == seconds(setting("timeout client"))
    assert limit > max(slowest) + 10
    assert limit > 2 * streams.HEARTBEAT_SECONDS


def test_the_proxy_lets_go_of_idle_clients_before_the_api_would() -> None:
    assert seconds(setting("timeout http-keep-alive")) < gunicorn_conf.keepalive


def test_the_proxy_passes_on_what_the_api_has_to_judge() -> None:
    default = Settings.model_fields["bulk_body_bytes_max"].default

    assert int(setting("tune.bufsize")) - 1024 > arriving.HEAD_BYTES_MAX
    assert int(setting("tune.http.maxhdr")) > gunicorn_conf.limit_request_fields
    body = services()["proxy"]["environment"]["BODY_BYTES_MAX"]
    assert body == f"${{BULK_BODY_BYTES_MAX:-{default}}}"


def test_the_proxy_repeats_no_request_that_was_sent() -> None:
    assert setting("retry-on") == "conn-failure"


def test_the_proxy_s_own_answers_are_problems_like_the_api_s() -> None:
    found = re.findall(
        r'^ +http-error status (\d+) content-type "application/problem\+json" string "(.+)"',
        PROXY.read_text(),
        re.MULTILINE,
    )

    assert {int(status) for status, _ in found} == {400, 408, 413, 502, 503, 504}
    for status, text in found:
        problem = json.loads(text.replace('\\"', '"'))
        assert problem["status"] == int(status)
        assert problem["code"].isupper()
