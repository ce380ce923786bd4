"""Settings of every command, read once from the environment.

Owns: names, units, defaults and bounds of all settings; the only place that reads the environment.
Must not know: connections, streams, models.
Invariant: an unknown `SIGNALS_…` name is refused by name, so that a typing error never runs with a default.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from contracts.fields import Partition
from strategies.market.rules import limited
from strategies.suggestions import nearest
from worker.errors import SettingsError
from worker.server_urls import registry_url, stream_url

PREFIX = "SIGNALS_"

LogFormat = Literal["auto", "json", "console"]


class Settings(BaseSettings):
    """All settings; each is `SIGNALS_<NAME>` in the environment, but for the two URLs."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, use_attribute_docstrings=True
    )

    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL", repr=False)
    """Redis or Valkey; unset: the embedded one of `local_dir`."""
    database_url: str | None = Field(default=None, validation_alias="DATABASE_URL", repr=False)
    """PostgreSQL; unset: the embedded one of `local_dir`."""
    mlflow_tracking_uri: str | None = Field(default=None, validation_alias="MLFLOW_TRACKING_URI")
    """MLflow tracking store; unset: a local file store under the artifacts directory."""

    namespace: str = Field(default="signals", pattern=r"^(\{[A-Za-z0-9_.-]{1,40}\}|[A-Za-z0-9_.-]{1,40})$")
    """Prefix of every key."""
    partition: Partition = ""
    """Request stream `<namespace>:requests:<partition>` that this worker reads alone; empty: `<namespace>:requests`."""
    data_dir: Path = Path("data")
    """Snapshots: `adjusted/<date>/` and `quarantine/<date>/` are below it."""
    artifacts_dir: Path = Path("artifacts")
    """Model bundles are below it; a registry path outside is refused."""
    local_dir: Path = Path(".local")
    """The embedded servers' files."""

    strategies: Annotated[tuple[str, ...], NoDecode] = ()
    """Strategies this worker serves, comma-separated; empty: every strategy with an active version."""
    calendar: str = "XNYS"
    """Exchange calendar, a code of `exchange_calendars`."""
    bar_limits: Annotated[tuple[str, ...], NoDecode] = ()
    """Limits that bars are held to, comma-separated NAME=VALUE (docs/data.md), whatever a snapshot states."""
    settle_minutes: int = Field(default=0, ge=0, le=1440)
    """Minutes after the close until a session counts as complete."""
    default_as_of: Literal["calendar", "snapshot"] = "calendar"
    """As-of of a request that names none: the calendar's last complete session, or the snapshot's last one."""
    stale_after_sessions: int = Field(default=0, ge=0, le=250)
    """Sessions by which a symbol's last bar may be behind the as-of session."""
    min_bars_share: float = Field(default=0.8, ge=0, le=1)
    """Share of the lookback's sessions on which a symbol must have a bar to be priced."""
    allow_unproven: bool = False
    """Whether bare models without a golden sample may serve."""
    serve_from_cache: bool = False
    """Whether a worker that starts without the registry or the active version's files serves what it proved last."""
    max_symbols: int = Field(default=5000, ge=1, le=50_000)
    """Most symbols in one request."""
    max_entry_bytes: int = Field(default=262_144, ge=1024, le=16_777_216)
    """Largest entry that is decoded, in bytes of names and values."""
    threads: int = Field(default=2, ge=1, le=64)
    """Threads that compute features."""
    explain_symbols: int = Field(default=100, ge=0, le=1000)
    """Most symbols of one request that asks for explanations; 0: none is explained."""
    explain_features: int = Field(default=5, ge=1, le=15)
    """Features that an explanation names for each symbol."""
    drift_sessions: int = Field(default=20, ge=0, le=250)
    """Last sessions whose rows are compared with those a model was trained on; 0: drift is not measured."""
    drift_alarm_psi: float = Field(default=0.25, gt=0, le=10)
    """PSI of the prediction from which its drift is logged as an alarm, if it is more than chance gives the model."""

    shadow_share: float = Field(default=0.1, ge=0, le=1)
    """Share of the answered requests that versions in testing compute too, chosen by request id; 0: none."""
    shadow_candidates: int = Field(default=2, ge=1, le=20)
    """Most versions in testing of one strategy that are loaded: its canary first, then the newest."""
    shadow_queue: int = Field(default=64, ge=1, le=10_000)
    """Answered requests that may wait to be shadowed; what comes while it is full is not shadowed."""

    worker_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.:-]{1,100}$")
    """Name of this consumer in the group; unset: host, process id and a nonce."""
    batch_count: int = Field(default=16, ge=1, le=1000)
    """Most entries read at once."""
    batch_bytes: int = Field(default=8_388_608, ge=1024, le=1_073_741_824)
    """Bytes that the entries of one batch may have, judged by the largest of those before."""
    block_ms: int = Field(default=2000, ge=10, le=60_000)
    """Longest blocking read."""
    lease_ms: int = Field(default=15_000, ge=100, le=3_600_000)
    """Idle time after which another worker may claim an entry."""
    claim_interval_ms: int = Field(default=500, ge=50, le=600_000)
    """Pause between two looks for entries of dead workers; no blocking read lasts longer."""
    grace_seconds: float = Field(default=10.0, ge=0, le=3600)
    """Time that a request which no living worker can answer waits for one that can, before it is rejected."""
    max_deliveries: int = Field(default=5, ge=1, le=100)
    """Deliveries after which an entry is rejected as `deliveries_exhausted`."""
    dedupe_seconds: int = Field(default=86_400, ge=1, le=31_536_000)
    """How long a request id is remembered."""
    reconcile_seconds: float = Field(default=300.0, gt=0, le=86_400)
    """Pause between two comparisons with the registry."""
    heartbeat_seconds: float = Field(default=5.0, gt=0, le=300)
    """Pause between two heartbeats."""
    shutdown_timeout_seconds: float = Field(default=20.0, gt=0, le=600)
    """Time that SIGTERM leaves for what was read."""
    backoff_max_seconds: float = Field(default=0.5, gt=0, le=300)
    """Longest wait between two tries to reach an unavailable server."""
    control_maxlen: int = Field(default=10_000, ge=100)
    """Approximate length at which the control stream, which has no group, is cut."""

    hung_after_seconds: float = Field(default=60.0, gt=0, le=3600, validate_default=True)
    """Time without progress after which a worker counts as hung, while it waits for a server too."""

    restart_max_seconds: float = Field(default=30.0, gt=0, le=3600)
    """Longest pause before a supervisor starts a worker again that died."""
    health_port: int = Field(default=0, ge=0, le=65_535)
    """Port of /livez, /readyz and /metrics; 0: none. Of several processes each has the next one."""
    health_host: str = "127.0.0.1"
    """Address that the health port listens on."""

    trace_exporter: str = ""
    """Exporter of OpenTelemetry spans, e.g. `console` or `otlp_proto_http`; empty: none. Needs the extra `otel`."""

    failpoints: str = ""
    """For tests alone: steps at which this worker fails, e.g. `seed=7,computed=kill@0.01`."""

    janitor_interval_seconds: float = Field(default=60.0, ge=0.1, le=3600)
    """Pause between two looks at streams to cut and consumers to remove, by one worker of the fleet."""
    retention_requests_hours: float = Field(default=12.0, gt=0, le=87_600, validate_default=True)
    """Hours that requests are kept, by the server's clock; longer where a group has not acknowledged them."""
    retention_results_hours: float = Field(default=168.0, gt=0, le=87_600)
    """Hours that signal vectors are kept, and longer where a gateway's group has not acknowledged them."""
    retention_probes_hours: float = Field(default=24.0, gt=0, le=87_600)
    """Hours that vectors of probes are kept, at most about 10,000 of them."""
    retention_rejections_hours: float = Field(default=720.0, gt=0, le=87_600)
    """Hours that rejections are kept."""
    retention_events_hours: float = Field(default=720.0, gt=0, le=87_600)
    """Hours that fleet events are kept."""
    retention_control_hours: float = Field(default=168.0, gt=0, le=87_600)
    """Hours that control events are kept."""
    retention_shadow_hours: float = Field(default=168.0, gt=0, le=87_600)
    """Hours that vectors of models in testing are kept."""

    alpaca_url: str = "https://paper-api.alpaca.markets"
    """Trading API of `signal-worker gateway --alpaca`; any but the paper endpoint needs `--live`."""
    alpaca_data_url: str = "https://data.alpaca.markets"
    """Market data API, which prices come from."""
    alpaca_key_id: str | None = None
    """Key of the account at Alpaca."""
    alpaca_secret_key: SecretStr | None = None
    """Its secret; sent to Alpaca and shown nowhere."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe line that is logged."""
    log_format: LogFormat = "auto"
    """`auto`: coloured on a terminal, JSON elsewhere."""

    @field_validator("redis_url")
    @classmethod
    def _read_by_the_driver(cls, url: str | None) -> str | None:
        if url is not None:
            stream_url(url)
        return url

    @field_validator("database_url")
    @classmethod
    def _read_by_libpq(cls, url: str | None) -> str | None:
        if url is not None:
            registry_url(url)
        return url

    @field_validator("bar_limits", mode="after")
    @classmethod
    def _limits_of_bars(cls, limits: tuple[str, ...]) -> tuple[str, ...]:
        limited(limits)
        return limits

    @field_validator("strategies", "bar_limits", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("hung_after_seconds")
    @classmethod
    def _outlast_a_try(cls, seconds: float, info: ValidationInfo) -> float:
        """A worker that waits for the server makes progress once a try: block, timeouts, pause."""
        longest = info.data.get("block_ms", 0) / 1000 + info.data.get("backoff_max_seconds", 0) + 15
        if seconds < longest:
            raise ValueError(f"one try to reach a server that is away takes up to {longest:g} s")
        return seconds

    @field_validator("retention_requests_hours")
    @classmethod
    def _forget_after_cutting(cls, hours: float, info: ValidationInfo) -> float:
        """A request that comes back with an older server must find its id remembered: else it is answered twice."""
        remembered = info.data.get("dedupe_seconds", float("inf"))
        kept = hours * 3600 + 2 * info.data.get("janitor_interval_seconds", 0)
        if remembered < kept:
            raise ValueError(
                f"requests lie up to {kept:g} s until a janitor cuts them, but dedupe_seconds is {remembered}: "
                f"an id must be remembered for longer than its request is kept"
            )
        return hours

    @property
    def retention_hours(self) -> dict[str, float]:
        """Stream to the hours that it is kept."""
        streams = ("requests", "results", "probes", "rejections", "events", "control", "shadow")
        return {stream: float(getattr(self, f"retention_{stream}_hours")) for stream in streams}


def load_settings(**overrides: object) -> Settings:
    """Return the settings of this environment, with the command line's overrides on top.

    Raises:
        SettingsError: An unknown name or an impossible value, named.
    """
    _refuse_unknown(os.environ)  # noqa: TID251 - this is the one place
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]  # validated by the model itself
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"setting {name}: {first['msg']} (was {first['input']!r})") from error


def setting_names() -> frozenset[str]:
    """Return the name of every setting as the environment spells it."""
    return frozenset(map(name_of, Settings.model_fields))


def name_of(field: str) -> str:
    """Return the name of one setting as the environment spells it."""
    return str(Settings.model_fields[field].validation_alias or f"{PREFIX}{field.upper()}")


def inherited_environment() -> dict[str, str]:
    """Return this process's environment, for children that run the same command line."""
    return dict(os.environ)  # noqa: TID251 - this is the one place


def _refuse_unknown(environment: "os._Environ[str]") -> None:
    known = setting_names()
    # Without the prefix, which nearly all names share: with it, any two of them are similar.
    bare = {name.removeprefix(PREFIX): name for name in known}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known:
            near = nearest(name.removeprefix(PREFIX), bare)
            raise SettingsError(f"unknown setting {name}" + (f"; did you mean {bare[near]}?" if near else ""))
