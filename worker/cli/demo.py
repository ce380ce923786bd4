"""`signal-worker demo`: the whole job on real bars, by the very lines that a user would type."""

import signal
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
READY_SECONDS = 60.0

_console = Console(highlight=False)


def demo(
    *,
    keep: Annotated[bool, typer.Option(help="Leave the servers, the publisher and the worker running.")] = False,
    stop: Annotated[bool, typer.Option(help="Stop what an earlier --keep left running.")] = False,
) -> None:
    """Import real bars, train, register, activate, ask, and show the answer."""
    settings = settings_of(default_as_of="snapshot")
    processes = settings.local_dir / "demo"
    if stop:
        _stop_kept(processes)
        LocalStack(settings.local_dir, detached=True).stop()
        return
    begun = time.monotonic()
    with _servers(settings, keep=keep) as endpoints:
        _run_job(_Job(settings, endpoints, processes, keep=keep))
        if keep:
            _print_lines(endpoints, settings)
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
    def running(self, verb: str) -> Iterator[None]:
        """Keep a process running; it ends with the demo, even with one that is killed, unless it is kept."""
        _console.print(f"[bold]$ signal-worker {verb} &[/bold]")
        self.processes.mkdir(parents=True, exist_ok=True)
        child = launch(
            Launch(
                command=(sys.executable, "-m", "worker", verb),
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


def _run_job(job: _Job) -> None:
    from strategies.market.snapshots import latest_snapshot

    _stop_kept(job.processes)
    data, artifacts = str(job.settings.data_dir), job.settings.artifacts_dir
    job.type("db", "migrate")
    job.type("data", "import", str(_source()), "--data-dir", data, "--run-date", datetime.now(UTC).date().isoformat())
    last_session = latest_snapshot(job.settings.data_dir).last_session
    before = _versions(artifacts)
    job.type("train", STRATEGY)
    (version,) = _versions(artifacts) - before
    with ExitStack() as running:
        running.enter_context(job.running("publish-registry"))
        running.enter_context(job.running("run"))
        job.type("models", "register", str(artifacts / "models" / STRATEGY / version))
        job.type("models", "activate", STRATEGY, version, "--reason", "demo")
        _await_serving(job, version)
        job.type("request", *DEMO_SYMBOLS, "--as-of", last_session.isoformat(), "--wait")


@contextmanager
def _servers(settings: "Settings", *, keep: bool) -> Iterator[Endpoints]:
    """Yield the servers of the environment, or the embedded ones; those end with the demo unless kept."""
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


def _await_serving(job: _Job, version: str) -> None:
    from worker.client import SignalClient

    wanted = f"{STRATEGY}={version}#"
    with SignalClient(job.endpoints.redis_url, namespace=job.settings.namespace) as client:
        if not wait_until(lambda: any(wanted in beat.models for beat in client.workers()), READY_SECONDS):
            refuse(
                f"no worker serves {version} after {READY_SECONDS:.0f} s; see {job.processes / 'run.log'}",
                code=ExitCode.FAILED,
            )
    _console.print(f"a worker has proven {STRATEGY} {version} and serves it")


def _end(pid: int) -> None:
    process = find(pid, (Path(sys.executable).name, "-m", "worker"))
    if process is not None:
        end(process, (signal.SIGTERM, signal.SIGKILL))


def _stop_kept(folder: Path) -> None:
    """End what an earlier `--keep` left; a process id that now belongs to something else is left alone."""
    for path in sorted(folder.glob("*.pid")):
        _end(int(path.read_text(encoding="utf-8")))
        path.unlink()


def _print_lines(endpoints: Endpoints, settings: "Settings") -> None:
    """Print the lines with which to play."""
    from contracts import StreamNames

    redis, names = f"redis-cli -u {endpoints.redis_url}", StreamNames(settings.namespace)
    program = Path(sys.executable).with_name("signal-worker")
    lines: Sequence[tuple[str, str]] = (
        ("ask", f"{redis} XADD {names.requests} '*' strategy {STRATEGY} symbols AAPL,MSFT,IBM"),
        ("read the last answer", f"{redis} XREVRANGE {names.results} + - COUNT 1"),
        ("read the last refusal", f"{redis} XREVRANGE {names.rejections} + - COUNT 1"),
        ("find the workers, then HGETALL one", f"{redis} --scan --pattern '{names.worker('*')}'"),
        ("let workers look again", f"{redis} XADD {names.control} '*' type reload strategy {STRATEGY}"),
        ("ask and wait", f"{program} request AAPL MSFT --as-of 2013-02-01 --wait"),
        ("list the models", f"{program} models list"),
        ("look into the registry", f"psql {endpoints.database_url} -c 'TABLE model_activations'"),
        ("end it all", f"{program} demo --stop"),
    )
    _console.print("\nThe servers, the publisher and the worker are running. Lines to play with:\n")
    for what, line in lines:
        _console.print(f"[dim]# {what}[/dim]")
        _console.print(line, soft_wrap=True, markup=False)
