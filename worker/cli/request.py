"""`signal-worker request`: send one request, show its answer."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli._common import ExitCode, Json, Namespace, print_json, redis_url_of, refuse, settings_of
from worker.cli._fleet import read_fleet
from worker.cli._streams import span_text, stream_server
from worker.cli._tables import print_line, print_table, right

if TYPE_CHECKING:
    from contracts import Heartbeat, Rejection, SignalVector
    from worker.operations.pending import RequestPlace


#: What predictions of each kind are, before their horizon.
_ABOUT = {
    "return": "return from",
    "score": "scores, whose order alone has a meaning, for",
    "probability": "probabilities for",
}


def request(
    symbols: Annotated[
        list[str] | None, typer.Argument(help="Symbols, apart or as AAPL,MSFT; none for the model's universe.")
    ] = None,
    strategy: Annotated[str, typer.Option(help="Which strategy to ask.")] = "alpha_baseline",
    as_of: Annotated[str | None, typer.Option(help="Day or instant with a time zone; the latest by default.")] = None,
    top_n: Annotated[int | None, typer.Option(help="Symbols bought at most.")] = None,
    bottom_n: Annotated[int | None, typer.Option(help="Symbols sold short at most.")] = None,
    deadline: Annotated[str | None, typer.Option(help="Instant after which no answer is wanted.")] = None,
    on_ineligible: Annotated[str | None, typer.Option(help="reject or exclude symbols with stale or few bars.")] = None,
    request_id: Annotated[str | None, typer.Option(help="Your own id, to ask again without asking twice.")] = None,
    namespace: Namespace = None,
    *,
    trade: Annotated[
        bool, typer.Option("--trade", help="Ask for a vector to be traded: it goes to the results, for gateways.")
    ] = False,
    producer: Annotated[str | None, typer.Option(help="Who asks, for gateways that follow some producers.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Ask which features moved each prediction most.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait for the answer and show it.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Send a signal request; with --wait, show the weights or the rejection (exit code 6).

    The request is a probe, whose vector no gateway applies, unless --trade is given.

    JSON: the signal vector or the rejection as in the contracts; without --wait: request_id.

    Example: signal-worker request AAPL,MSFT IBM --wait --timeout 10
    """
    from pydantic import ValidationError

    from contracts import Purpose, SignalVector
    from worker.client import OutcomeGone, SignalClient
    from worker.errors import RequestTimeout

    settings = settings_of(namespace=namespace)
    options = {"top_n": top_n, "bottom_n": bottom_n, "deadline": deadline, "on_ineligible": on_ineligible}
    # Left out where it is not asked for: workers of before the field refuse what they do not know.
    options |= {"explain": True} if explain else {}
    purpose = Purpose.TRADE if trade else Purpose.PROBE
    options |= {"purpose": None if trade else purpose, "producer": producer}
    with SignalClient(redis_url_of(settings), namespace=settings.namespace, partition=settings.partition) as client:
        try:
            sent = client.submit(strategy, _split(symbols), as_of=as_of, request_id=request_id, **options)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            refuse(f"{first['loc'][0]} was {first['input']!r}: {first['msg']}")
        try:
            outcome = client.result(sent, timeout=timeout) if wait else None
        except OutcomeGone as error:
            refuse(error, code=ExitCode.TIMEOUT)
        except RequestTimeout:
            why = why_unanswered(settings.namespace, sent, strategy)
            refuse(f"request {sent} has no outcome after {timeout:g} s: {why}", code=ExitCode.TIMEOUT)
    if outcome is None:
        print_json({"request_id": sent}) if as_json else typer.echo(sent)
        return
    if isinstance(outcome, SignalVector) and outcome.purpose is not purpose:
        # The id was taken: its one outcome answers the earlier request.
        asked = f"request {sent} was asked before, to {outcome.purpose.value}; ask to {purpose.value} under another id"
        refuse(asked, code=ExitCode.CONFLICT)
    if as_json:
        print_json(outcome)
    else:
        show(outcome)
    if not isinstance(outcome, SignalVector):
        raise typer.Exit(ExitCode.REJECTED)


def show(outcome: "SignalVector | Rejection") -> None:
    """Print a vector as a table, or a rejection as a sentence."""
    from contracts import SignalVector

    if not isinstance(outcome, SignalVector):
        print_line(f"rejected {outcome.code.value}: {outcome.reason}")
        return
    _print_vector(outcome)
    if outcome.explanations:
        _print_explanations(outcome)
    for excluded in outcome.excluded:
        print_line(f"left out {excluded.code}: {excluded.reason}")


def why_unanswered(namespace: str, request_id: str, strategy: str) -> str:
    """Return a clause that states why a request has no outcome yet, and what remedies it."""
    from worker.operations.pending import Requests

    with stream_server(namespace) as (client, names, _):
        beating = [one.heartbeat for one in read_fleet(client, names) if one.beats]
        place = Requests(client, names).find(request_id)
    living = [beat for beat in beating if beat is not None and beat.partition == names.partition]
    return (_of_fleet(living, namespace, strategy) if not place.answered else "") or _of_entry(place)


def _of_fleet(living: "list[Heartbeat]", namespace: str, strategy: str) -> str:
    """Return why no worker can answer; empty: one can."""
    if not living:
        return f"no worker lives in {namespace}; `signal-worker run` starts one"
    able = [beat for beat in living if not beat.strategies or strategy in beat.strategies.split(",")]
    if not able:
        return f"no worker of {namespace} serves {strategy}: {', '.join(beat.worker for beat in living)}"
    if all(beat.state == "paused" for beat in able):
        return f"paused: {', '.join(beat.worker for beat in able)}; `signal-worker control resume` ends it"
    # A worker with a reason, as bars that are older than the last session, answers all the same.
    if any(beat.state == "serving" for beat in able):
        return ""
    states = "; ".join(f"{beat.worker} {beat.state}" + (f" ({beat.reason})" if beat.reason else "") for beat in able)
    return f"no worker is ready: {states}"


def _of_entry(place: "RequestPlace") -> str:
    from worker.cli.requests import not_found_text, waiting_text

    if place.answered:
        return f"its outcome came meanwhile: `signal-worker requests show {place.record.request_id}`"
    if (claimed := place.claimed) is not None:
        error = f", last error: {claimed.last_error}" if claimed.last_error else ""
        return (
            f"{claimed.holder.name} ({claimed.holder.state}) was given it, delivery {claimed.deliveries}, "
            f"idle for {span_text(claimed.idle_ms)}{error}"
        )
    return waiting_text(place.waiting) if place.waiting is not None else not_found_text(place)


def _split(symbols: list[str] | None) -> list[str] | None:
    """Return symbols that were typed apart or with commas, as on the stream; an empty place stays one."""
    return [part.strip() for text in symbols for part in text.split(",")] if symbols else None


def _print_vector(vector: "SignalVector") -> None:
    rows = [
        (signal.symbol, f"{signal.predicted_return:+.6f}", signal.rank, f"{signal.target_weight:+.4f}")
        for signal in vector.weights
    ]
    probe = " (probe)" if vector.purpose == "probe" else ""
    title = f"{vector.strategy} {vector.model_version}, as of {vector.as_of}{probe}"
    print_table(("symbol", *right(_predicted(vector), "rank", "weight")), rows, title=title)
    horizon = vector.horizon or "a horizon that nobody stated"
    print_line(f"{_ABOUT[vector.prediction_kind]} {horizon}; valid until {vector.valid_until:%Y-%m-%d %H:%M} UTC")
    print_line(
        f"long {vector.used_top_n} of {vector.requested_top_n}, short {vector.used_bottom_n} of "
        f"{vector.requested_bottom_n}; in queue {vector.queue_ms:.1f} ms, computed in {vector.compute_ms:.1f} ms"
    )


def _predicted(vector: "SignalVector") -> str:
    return "predicted return" if vector.prediction_kind == "return" else vector.prediction_kind.value


def _print_explanations(vector: "SignalVector") -> None:
    predicted = {signal.symbol: signal.predicted_return for signal in vector.weights}
    rows: list[tuple[str, str, str | None, str]] = []
    for one in vector.explanations:
        rows.append((one.symbol, "base", None, f"{one.base:+.6f}"))
        for each in one.contributions:
            value = "missing" if each.value is None else f"{each.value:.4g}"
            rows.append((one.symbol, each.feature, value, f"{each.contribution:+.6f}"))
        rows.append((one.symbol, "others", None, f"{one.others:+.6f}"))
        rows.append((one.symbol, _predicted(vector), None, f"{predicted[one.symbol]:+.6f}"))
    title = f"why: base, features and others sum to the {_predicted(vector)}"
    print_table(("symbol", "feature", *right("value", "contribution")), rows, title=title)
