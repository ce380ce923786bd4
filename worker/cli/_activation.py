"""What the verbs that activate a version end with: whether the fleet serves it.

Owns: the options `--wait` and `--timeout`, what is read while waiting, the sentence and the exit code.
Must not know: which verb activated, and why.
Invariant: a sentence states that a version is served only after every living worker stated so itself.

Exit codes: 1 refused, not published, no worker lives, or a worker cannot serve it, 7 a worker does not serve it yet,
8 a server that was to be asked is unavailable.
"""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from worker.cli._common import ExitCode, code_of, database_url_of, redis_url_of, refuse, settings_of
from worker.cli._fleet import read_fleet
from worker.cli._registry import registry
from worker.embedded import StackError
from worker.errors import WorkerError

if TYPE_CHECKING:
    from contracts import Heartbeat, StreamNames
    from worker.operations.activation_wait import ActivationOutcome
    from worker.registry.models import Activation, ActiveModel
    from worker.registry.registry import Registry
    from worker.transport.client import Client

#: Events looked at for what workers refused, the latest ones.
_EVENTS = 500

Wait = Annotated[
    bool | None,
    typer.Option(
        "--wait/--no-wait",
        help="Wait until every living worker serves it, or fail with the names; default: on a terminal.",
        show_default=False,
    ),
]
Timeout = Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds to wait for the workers.")]


def await_activation(active: "ActiveModel", namespace: str | None, *, wait: bool | None, timeout: float) -> str:
    """Return a clause that names the workers which serve an activation; empty where nobody waits for them.

    Ends the verb with a sentence and an exit code where it is not served by every living worker.
    """
    if not (sys.stdout.isatty() if wait is None else wait):
        return ""
    from contracts import StreamNames
    from worker.operations.activation_wait import await_serving
    from worker.transport.client import connect

    settings = settings_of(namespace=namespace)
    names = StreamNames(settings.namespace, settings.partition)
    try:
        with connect(redis_url_of(settings), "signal-worker:models") as client, registry() as models:
            outcome = await_serving(active, _State(active, models, client, names), timeout=timeout)
    except (WorkerError, StackError) as error:
        # The activation is made, whatever can be found out about it.
        served = f"{_name(active)} is active in the registry; whether it is served is not known"
        refuse(f"{served}: {error}", code=code_of(error))
    if not outcome.served:
        _refuse(active, outcome, settings.namespace, timeout)
    return f", served by {', '.join(outcome.served_by)}"


class _State:
    """The registry, its publisher and the fleet, as they are now."""

    def __init__(self, wanted: "ActiveModel", models: "Registry", client: "Client", names: "StreamNames") -> None:
        self._wanted, self._models, self._client, self._names = wanted, models, client, names
        self._database_url = database_url_of(settings_of())
        self._led, self._led_looked_at = True, float("-inf")

    def living(self) -> "Mapping[str, Heartbeat | None]":
        beats = [beat for beat in read_fleet(self._client, self._names) if beat.state != "gone"]
        return {beat.worker: beat.heartbeat if beat.beats else None for beat in beats}

    def refusals(self) -> Mapping[str, str]:
        from contracts import ContractError, FleetEvent, FleetEventType
        from contracts.codec import decode
        from worker.transport.client import pairs_of

        refused: dict[str, str] = {}
        rows = self._client.execute_command("XREVRANGE", self._names.events, "+", "-", "COUNT", _EVENTS)
        for _, flat in reversed(rows):
            try:
                event = decode(FleetEvent, pairs_of(flat))
            except ContractError:
                continue  # of a newer worker, or written by hand
            if (event.strategy, event.activation) != (self._wanted.strategy, self._wanted.activation):
                continue
            if event.type is FleetEventType.MODEL_FAILED:
                refused[event.worker] = event.reason or "refused"
            elif event.type is FleetEventType.MODEL_LOADED:
                refused.pop(event.worker, None)
        return refused

    def active(self) -> "ActiveModel | None":
        return self._models.active(self._wanted.strategy)

    def led(self) -> bool:
        from worker.registry.outbox import publisher_status

        # Asked by a connection of its own, so once a second is enough.
        if time.monotonic() - self._led_looked_at > 1:
            self._led, self._led_looked_at = publisher_status(self._database_url).led, time.monotonic()
        return self._led

    def failure(self) -> "Activation | None":
        changes = self._models.history(self._wanted.strategy, limit=20)
        of_version = (one for one in changes if (one.version, one.action) == (self._wanted.version, "failed"))
        return next(of_version, None)


def _name(active: "ActiveModel") -> str:
    return f"{active.strategy} {active.version} (activation {active.activation})"


def _refuse(active: "ActiveModel", outcome: "ActivationOutcome", namespace: str, timeout: float) -> NoReturn:
    name = _name(active)
    differing = "; ".join(f"{worker}: {why}" for worker, why in outcome.differing.items())
    if outcome.refused:
        refuse(f"{name} is not served: {outcome.refused}", code=ExitCode.FAILED)
    if outcome.unpublished:
        remedy = "`signal-worker publish-registry` does; workers also look by themselves, and at `control reload`"
        behind = f"; not serving it yet: {differing}" if differing else ""
        refuse(f"{name} is active in the registry and nobody publishes it: {remedy}{behind}", code=ExitCode.FAILED)
    if not differing:
        remedy = f"no worker that serves {active.strategy} lives in {namespace}: `signal-worker run` starts one"
        refuse(f"{name} is active in the registry and not served: {remedy}", code=ExitCode.FAILED)
    served = f", served by {', '.join(outcome.served_by)}" if outcome.served_by else ""
    refused = outcome.differing.keys() <= outcome.refusals
    code = ExitCode.FAILED if refused else ExitCode.TIMEOUT
    after = "" if refused else f" after {timeout:g} s"
    refuse(f"{name} is active in the registry{served}, and not served{after} by {differing}", code=code)
