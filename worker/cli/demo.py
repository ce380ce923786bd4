"""`signal-worker demo`: the whole job on real bars, by the very lines that a user would type."""

import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from worker.cli._common import ExitCode, refuse, settings_of
from worker.embedded import Endpoints, LocalStack
from worker.embedded.processes import Launch, end, find, launch, wait_until
from worker.settings import inherited_environment

if TYPE_CHECKING:
    from worker.settings import Settings

#: Symbols of the demo's bars.
DEMO_SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
STRATEGY = "alpha_baseline"
#: Time a process of the demo has to be ready, in seconds.
READY_SECONDS = 180.0

_console = Console(highlight=False)


def demo(
    *,
    keep: Annotated[bool, typer.Option(help="Leave the servers, the publisher and the worker running.")] = False,
    stop: Annotated[bool, typer.Option(help="Stop what an earlier --keep left running.")] = False,
    on_given_servers: Annotated[
        bool, typer.Option("--on-given-servers", help="Use the servers of REDIS_URL and DATABASE_URL.")
    ] = False,
) -> None:
    """Import real bars, train, register, activate, ask, trade on paper, and show what came out.

    Example: signal-worker demo --keep
    """
    settings = settings_of(default_as_of="snapshot")
    processes = settings.local_dir / "demo"
    if stop:
        _stop_kept(processes)
        LocalStack(settings.local_dir, detached=True).stop()
        return
    _check_servers(settings, wanted=on_given_servers)
    begun = time.monotonic()
    port = _health_port(settings) if keep else 0
    with _servers(settings, keep=keep) as endpoints:
        worker = _run_job(_Job(settings, endpoints, processes, keep=keep), port)
        if keep:
            _print_lines(lines_to_try(endpoints, settings, worker, port))
    _console.print(
        f"[green]done[/green] in {time.monotonic() - begun:.1f} s" + ("" if keep else ", nothing is running")
    )


class _Job:
    """One run of the demo: where its servers and folders are, and how it types a line."""

    def __init__(self, settings: "Settings", endpoints: Endpoints, processes: Path, *, keep: bool) -> None:
        self.settings, self.processes, self.keep = settings, processes, keep
        # The same variables as in docker-compose.yml.
        self.environment = inherited_environment() | {
            "REDIS_URL": endpoints.redis_url,
            "DATABASE_URL": endpoints.database_url,
            "SIGNALS_NAMESPACE": settings.namespace,
            "SIGNALS_DATA_DIR": str(settings.data_dir),
            "SIGNALS_ARTIFACTS_DIR": str(settings.artifacts_dir),
            "SIGNALS_DEFAULT_AS_OF": settings.default_as_of,
        }
        self.endpoints = endpoints

    def type(self, *words: str) -> None:
        """Show a line, run it, and end the demo if it fails."""
        _console.print(f"[bold]$ signal-worker {' '.join(words)}[/bold]", markup=True, soft_wrap=True)
        done = subprocess.run([sys.executable, "-m", "worker", *words], env=self.environment, check=False)
        if done.returncode:
            refuse(f"`signal-worker {words[0]}` ended with {done.returncode}", code=ExitCode.FAILED)

    @contextmanager
    def running(self, verb: str, *options: str) -> Iterator[None]:
        """Keep a process running; it ends with the demo, even with one that is killed, unless it is kept."""
        _console.print(f"[bold]$ signal-worker {' '.join([verb, *options])} &[/bold]")
        self.processes.mkdir(parents=True, exist_ok=True)
        child = launch(
            Launch(
                command=(sys.executable, "-m", "worker", verb, *options),
                log=(self.processes / f"{verb}.log").resolve(),
                death_signal=None if self.keep else signal.SIGTERM,
                environment=self.environment,
                folder=Path.cwd(),
            )
        )
        if self.keep:
            (self.processes / f"{verb}.pid").write_text(str(child.pid), encoding="utf-8")
        try:
            yield
        finally:
            if not self.keep:
                _end(child.pid)


def _run_job(job: _Job, port: int) -> str:
    """Run it and return the name of the worker that serves."""
    from strategies.market.snapshots import latest_snapshot

    _stop_kept(job.processes)
    data, artifacts = str(job.settings.data_dir), job.settings.artifacts_dir
    job.type("db", "migrate")
    job.type("data", "import", str(_source()), "--data-dir", data, "--run-date", datetime.now(UTC).date().isoformat())
    last_session = latest_snapshot(job.settings.data_dir).last_session
    before = _versions(artifacts)
    job.type("train", STRATEGY, "--no-mlflow")
    (version,) = _versions(artifacts) - before
    with ExitStack() as running:
        running.enter_context(job.running("publish-registry"))
        running.enter_context(job.running("run", *(["--health-port", str(port)] if port else [])))
        job.type("models", "register", str(artifacts / "models" / STRATEGY / version))
        job.type("models", "activate", STRATEGY, version, "--reason", "demo")
        worker = _await_serving(job, version)
        job.type("request", *DEMO_SYMBOLS, "--as-of", last_session.isoformat(), "--wait")
        # The first only asks; this one is to be traded, over the model's whole universe.
        job.type("request", "--as-of", last_session.isoformat(), "--trade")
        job.type("gateway", "--paper", "--once")
    return worker


def _check_servers(settings: "Settings", *, wanted: bool) -> None:
    """End before the toy model is activated on servers that may be somebody's own."""
    given = [name for name, url in (("REDIS_URL", settings.redis_url), ("DATABASE_URL", settings.database_url)) if url]
    if wanted and len(given) < 2:  # noqa: PLR2004 - both
        refuse("--on-given-servers needs REDIS_URL and DATABASE_URL")
    if given and not wanted:
        verb, them = ("is", "it") if len(given) == 1 else ("are", "them")
        refuse(
            f"{' and '.join(given)} {verb} set, and the demo would activate its toy model on those servers: "
            f"unset {them} to use embedded servers, or pass --on-given-servers"
        )


@contextmanager
def _servers(settings: "Settings", *, keep: bool) -> Iterator[Endpoints]:
    """Yield the given servers, or the embedded ones; those end with the demo unless kept."""
    if settings.redis_url and settings.database_url:
        yield Endpoints(redis_url=settings.redis_url, database_url=settings.database_url)
        return
    begun = time.monotonic()
    with _console.status("starting Valkey and PostgreSQL …"):
        stack = LocalStack(settings.local_dir, detached=keep)
        endpoints = stack.start()
    _console.print(f"Valkey and PostgreSQL are up after {time.monotonic() - begun:.1f} s, in {settings.local_dir}")
    try:
        yield endpoints
    finally:
        if not keep:
            stack.stop()


def _source() -> Path:
    try:
        package = resources.files("bokeh_sampledata")
    except ModuleNotFoundError:
        refuse("the demo's bars are not installed: pip install 'signal-worker[demo]'")
    return Path(str(package)) / "_data" / "stocks.csv.gz"


def _versions(artifacts: Path) -> set[str]:
    folder = artifacts / "models" / STRATEGY
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()


def _await_serving(job: _Job, version: str) -> str:
    """Return the name of the worker that serves the version."""
    from worker.client import SignalClient

    wanted = f"{STRATEGY}={version}#"
    with SignalClient(
        job.endpoints.redis_url, namespace=job.settings.namespace, partition=job.settings.partition
    ) as client:

        def serving() -> list[str]:
            return [beat.worker for beat in client.workers() if wanted in beat.models]

        if not wait_until(lambda: bool(serving()), READY_SECONDS):
            refuse(
                f"no worker serves {version} after {READY_SECONDS:.0f} s; see {job.processes / 'run.log'}",
                code=ExitCode.FAILED,
            )
        (worker, *_) = serving()
    _console.print(f"a worker has proven {STRATEGY} {version} and serves it")
    return worker


def _health_port(settings: "Settings") -> int:
    """Return the port that is set, else the first free one from 8080 on."""
    if settings.health_port:
        return settings.health_port
    for port in range(8080, 8180):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.health_host, port))
            except OSError:
                continue
            return port
    return 0


def _end(pid: int) -> None:
    process = find(pid, (Path(sys.executable).name, "-m", "worker"))
    if process is not None:
        end(process, (signal.SIGTERM, signal.SIGKILL))


def _stop_kept(folder: Path) -> None:
    """End what an earlier `--keep` left; a process id that now belongs to something else is left alone."""
    for path in sorted(folder.glob("*.pid")):
        _end(int(path.read_text(encoding="utf-8")))
        path.unlink()


def lines_to_try(endpoints: Endpoints, settings: "Settings", worker: str, port: int) -> list[tuple[str, str]]:
    """Return lines for a shell in this folder, each with what it does."""
    from contracts import StreamNames

    redis, names = (
        f"redis-cli -u {shlex.quote(_with_user(endpoints.redis_url))}",
        StreamNames(settings.namespace, settings.partition),
    )
    program, health = _program(), f"http://{settings.health_host}:{port}"
    looks = [
        ("is it alive?", f"curl -s {health}/livez"),
        ("can it answer?", f"curl -s {health}/readyz"),
        ("what does it measure?", f"curl -s {health}/metrics"),
    ]
    return [
        ("ask", f"{redis} XADD {names.requests} '*' strategy {STRATEGY} symbols AAPL,MSFT,IBM purpose probe"),
        ("read the last answer", f"{redis} XREVRANGE {names.probes} + - COUNT 1"),
        ("read the last rejection", f"{redis} XREVRANGE {names.rejections} + - COUNT 1"),
        ("find the workers", f"{redis} --scan --pattern '{names.worker('*')}'"),
        ("read a worker's heartbeat", f"{redis} HGETALL {shlex.quote(names.worker(worker))}"),
        ("let workers look at the registry again", f"{redis} XADD {names.control} '*' type reload strategy {STRATEGY}"),
        ("ask and wait", f"{program} request AAPL MSFT --as-of 2013-02-01 --wait"),
        ("who serves what?", f"{program} models status"),
        ("list the models", f"{program} models list"),
        *(looks if port else []),
        ("look into the registry", f"psql {shlex.quote(endpoints.database_url)} -c 'TABLE model_activations'"),
        ("end it all", f"{program} demo --stop"),
    ]


def _with_user(url: str) -> str:
    """Return the URL with the user `default` before a password alone: redis-cli before 7.2 refuses it without."""
    return url.replace("://:", "://default:", 1)


def _program() -> str:
    """Return how a shell in this folder starts `signal-worker`, whatever its PATH."""
    script = Path(sys.executable).with_name("signal-worker")
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m worker"
    return shlex.quote(str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script))


def _print_lines(lines: "Sequence[tuple[str, str]]") -> None:
    _console.print("\nThe servers, the publisher and the worker are running. Lines to play with:\n")
    for what, line in lines:
        _console.print(f"[dim]# {what}[/dim]")
        _console.print(line, soft_wrap=True, markup=False)
    packages = {"redis-cli": "redis-tools", "psql": "postgresql-client", "curl": "curl"}
    missing = [f"{name} (package {package})" for name, package in packages.items() if shutil.which(name) is None]
    if missing:
        _console.print(f"\nNot installed here: {', '.join(missing)}", soft_wrap=True)
