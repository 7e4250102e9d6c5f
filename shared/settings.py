"""All settings, read from the environment here and nowhere else.

Each field is an environment variable of the same name in capitals. Where DynamoDB is and who we
are there is boto's own business (AWS_ENDPOINT_URL_DYNAMODB, AWS_DEFAULT_REGION, AWS_PROFILE ...).
"""

from datetime import date, time, timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit, urlunsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.domain.decision import Rules
from shared.domain.market import ALWAYS_OPEN, EVERY_DAY, Market
from shared.networks import Network, is_loopback_host, read_networks

_CACHE_DB = "1"
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

Count = Annotated[int, Field(ge=1, le=10_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Rate = Annotated[float, Field(ge=0, le=1_000_000)]
Allowance = Annotated[int, Field(ge=0, le=1_000_000_000)]


class Settings(BaseSettings):
    """The settings of every process; an impossible value stops it at its start."""

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    redis_url: str = "redis://127.0.0.1:6379/0"
    """The broker. It must not evict (maxmemory-policy noeviction)."""
    cache_url: str = ""
    """The status cache; when empty, database 1 of the broker's server."""
    table_name: str = "orders"

    api_host: str = "127.0.0.1"
    api_port: Annotated[int, Field(ge=1, le=65_535)] = 8000
    api_processes: Count = 2
    api_threads: Count = 32
    """Requests that one process works on at once (in green threads)."""
    body_bytes_max: Annotated[int, Field(ge=1024, le=10_000_000)] = 65_536
    bulk_body_bytes_max: Annotated[int, Field(ge=1024, le=10_000_000)] = 1_048_576
    """The same for a request that brings many orders."""
    accept_seconds_max: Seconds = 2.5
    """A POST is answered within this time, if need be with 503."""
    bulk_seconds_max: Seconds = 8.0
    """Lines of a bulk request that are not tried within this time are answered 503; shorter than a
    stopping process lets requests run."""
    wait_seconds_max: Annotated[int, Field(ge=0, le=20)] = 20
    """The longest that a request may wait for its order to be decided. Balancers cut idle
    connections, some after 25 s, and the last look takes some seconds while the store is slow."""
    waits_max: Count = 250
    """Requests of one process that wait at once; more are answered as if they did not ask to."""
    streams_max: Count = 200
    """Event streams of one process. With ``waits_max`` fewer than the connections it takes."""
    streams_per_account_max: Count = 10
    """Event streams of one account in one process."""
    stream_seconds_max: Seconds = 3600.0
    """Life of an event stream; then it ends, and the client connects again."""
    request_seconds_max: Seconds = 10.0
    """A request has to arrive whole within this time."""
    drain_seconds: Annotated[float, Field(ge=0, le=300)] = 5.0
    """How long a stopping API says so on ``/readyz`` and serves on; longer than a balancer needs to
    see it."""

    access_keys: Literal["required", "off"] = "required"
    """Whether the API asks for a key; off is for an API that only its own machine can reach."""
    open_to_everyone_without_keys: bool = False
    anyone_may_trade_and_read_all_accounts: bool = False
    """Only both together let an API without keys listen where others can reach it."""
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = ()
    """Networks of the proxies whose X-Forwarded-For is believed, separated by commas."""
    key_rate: Rate = 0
    """Requests a second of one key, 0 for any number."""
    key_burst: Allowance = 0
    """Requests of one key at once; 0 for as many as its rate allows in a second."""
    key_daily_quota: Allowance = 0
    """Requests of one key in a day of UTC, 0 for any number."""
    address_rate: Rate = 0
    """Requests a second of one client address, 0 for any number."""
    address_burst: Allowance = 0
    audit_log: bool | None = None
    """A line for each request that may change something, and for each commit of decisions; unset:
    where keys are required."""
    unversioned_sunset: date | None = None
    """When the paths without a version will go; the Sunset header says so."""

    metrics: bool = True
    """Whether the API counts, and shows what it counted on ``/metrics``."""
    metrics_host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """Where a worker or a sweeper shows its metrics; 0: nowhere, and it counts nothing."""
    log_format: Literal["json", "console"] = "json"
    """Lines for programs, or for a person's eyes."""

    otel_exporter_otlp_endpoint: str = ""
    """Where traces go (OTLP over HTTP); empty: nothing is traced."""

    worker_processes: Count = 2
    """Child processes of one worker."""
    attempts_max: Count = 5
    """Times that a lost order is tried again before it is parked as failed."""

    recover_after: Seconds = 10.0
    """Age in seconds at which an undecided order that is not in the queue is sent again."""
    sweep_every: Seconds = 2.0
    cache_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 86_400
    """How long a final status stays in the cache."""

    market_open: time = time(6)
    market_close: time = time(15)
    market_tz: ZoneInfo = ZoneInfo("America/Mexico_City")
    market_days: Annotated[frozenset[int], NoDecode] = EVERY_DAY
    """Trading days: names (mon,tue,...) separated by commas, or a range (mon-fri)."""
    market_always_open: bool = False
    timestamp_skew: Annotated[float, Field(ge=0, lt=300)] = 5.0
    """Grace in seconds for clients' clocks."""

    @field_validator("market_tz", mode="before")
    @classmethod
    def _zone(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return ZoneInfo(value)
        except ZoneInfoNotFoundError as error:
            raise ValueError(f"there is no time zone {value!r}") from error

    @field_validator("market_days", mode="before")
    @classmethod
    def _days(cls, value: object) -> object:
        return parse_days(value) if isinstance(value, str) else value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        return read_networks(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_closed_by_default(self) -> Self:
        if self.access_keys == "off" and not self.is_private and not self.is_open_to_everyone:
            raise ValueError(
                f"ACCESS_KEYS=off is for an API on loopback, and API_HOST is {self.api_host}: there"
                " everybody could trade and read all accounts. Require keys (ACCESS_KEYS=required,"
                " the default), or listen on 127.0.0.1. If everybody shall: set"
                " OPEN_TO_EVERYONE_WITHOUT_KEYS=true and"
                " ANYONE_MAY_TRADE_AND_READ_ALL_ACCOUNTS=true as well."
            )
        return self

    @model_validator(mode="after")
    def _rules_are_possible(self) -> Self:
        _ = self.rules
        return self

    @property
    def is_auditing(self) -> bool:
        """Who did what, and what became of it, is written down."""
        return self.access_keys == "required" if self.audit_log is None else self.audit_log

    @property
    def is_private(self) -> bool:
        """The API listens where only its own machine can reach it."""
        return is_loopback_host(self.api_host)

    @property
    def is_open_to_everyone(self) -> bool:
        """It was said twice that nobody has to show a key."""
        return self.open_to_everyone_without_keys and self.anyone_may_trade_and_read_all_accounts

    @property
    def market(self) -> Market:
        """The market's hours."""
        if self.market_always_open:
            return ALWAYS_OPEN
        return Market(self.market_open, self.market_close, self.market_tz, self.market_days)

    @property
    def rules(self) -> Rules:
        """The rules' settings."""
        return Rules(self.market, timedelta(seconds=self.timestamp_skew))

    @property
    def cache_location(self) -> str:
        """URL of the status cache."""
        if self.cache_url:
            return self.cache_url
        parts = urlsplit(self.redis_url)
        return urlunsplit(parts._replace(path=f"/{_CACHE_DB}"))


def parse_days(text: str) -> frozenset[int]:
    """Read ``mon-fri`` or ``mon,wed`` as weekdays (Monday is 0).

    Raises:
        ValueError: a name is no weekday.
    """
    days: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, is_range, last = part.partition("-")
        start = _day(first)
        end = _day(last) if is_range else start
        days.update((start + step) % 7 for step in range((end - start) % 7 + 1))
    return frozenset(days)


def _day(name: str) -> int:
    for number, day in enumerate(_DAYS):
        if name in (day, day[:3]):
            return number
    raise ValueError(f"{name!r} is no weekday; use {', '.join(day[:3] for day in _DAYS)}")
