"""`signal-worker models promote`: activate a version if the evidence on it holds, and only then.

Exit codes: 4 nothing is active, or the strategy was changed since its evidence was gathered, 5 a criterion does not
hold.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import _comparison as comparison
from worker.cli._activation import Timeout, Wait, await_activation
from worker.cli._common import (
    ExitCode,
    Json,
    Namespace,
    database_url_of,
    operator,
    print_json,
    refuse,
    settings_of,
)
from worker.cli._comparison import EvidenceSource, Last, Recompute, Since, Snapshot
from worker.cli._registry import registry
from worker.cli._tables import Column, print_table

if TYPE_CHECKING:
    from worker.operations.comparison.gate import Criterion
    from worker.operations.comparison.gathering import Evidence
    from worker.operations.promotion import PromotionBaseline


def promote(
    strategy: Annotated[str, typer.Argument(help="Name of the strategy.")],
    version: Annotated[str, typer.Argument(help="Version in testing, or one that served before.")],
    min_rank_ic: Annotated[float, typer.Option(min=-1, max=1, help="Least mean realised rank IC of the version.")],
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Least mean agreement of its legs with the active version's.")
    ],
    sessions: Annotated[int, typer.Option(min=1, max=10_000, help="Least sessions whose rank IC is known.")],
    max_turnover: Annotated[float | None, typer.Option(min=0, help="Most turnover from one as-of to the next.")] = None,
    max_tied_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Most of its book that equal predictions leave to the alphabet.")
    ] = None,
    max_latency_ratio: Annotated[
        float | None, typer.Option(min=0, help="Most of its median compute time over the active version's.")
    ] = None,
    since: Since = None,
    last: Last = 10_000,
    snapshot: Snapshot = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept in the history before the evidence.")] = None,
    by: Annotated[str | None, typer.Option(help="Who; your login name by default.")] = None,
    namespace: Namespace = None,
    *,
    wait: Wait = None,
    timeout: Timeout = 60.0,
    recompute: Recompute = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Evaluate the criteria alone; activate nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Let a version serve if the evidence on it holds; refuse and change nothing if not (exit code 5).

    With --wait it succeeds once every living worker serves it; else exit code 1 or 7, and the workers by name.

    JSON: passed, activation, criteria, evidence.

    Example: signal-worker models promote alpha_baseline v2 --min-rank-ic 0.02 --min-agreement 0.3 --sessions 60
    """
    from worker.operations.comparison.gate import Candidacy, PromotionLimits, evaluate

    limits = PromotionLimits(
        sessions=sessions,
        min_rank_ic=min_rank_ic,
        min_agreement=min_agreement,
        max_turnover=max_turnover,
        max_tied_share=max_tied_share,
        max_latency_ratio=max_latency_ratio,
    )
    settings, before = settings_of(namespace=namespace), _baseline(strategy, version)
    source = EvidenceSource(
        recompute_sessions=sessions if recompute else None,
        since=since.date() if since else None,
        last=last,
        snapshot=snapshot,
    )
    evidence = comparison.gathered(settings, (before.serving, before.candidate), source)
    candidacy = Candidacy(status=before.candidate.status, unproven=evidence.right.unproven)
    criteria = evaluate(evidence.comparison, candidacy, limits)
    passed = all(one.holds for one in criteria)
    number = _activate(before, _reason(evidence, criteria, reason), by) if passed and not dry_run else None
    if as_json:
        print_json(_as_json(evidence, criteria, number))
    else:
        _show(evidence, criteria)
    served = ""
    if number is not None:
        active = replace(before.active, version=version, activation=number)
        served = await_activation(active, namespace, wait=wait, timeout=timeout)
    _end(before, criteria, number, served)


def _baseline(strategy: str, version: str) -> "PromotionBaseline":
    from worker.operations.promotion import NothingActive, promotion_baseline

    with registry(strategy, version) as models:
        try:
            before = promotion_baseline(models, strategy, version)
        except NothingActive as error:
            refuse(error, code=ExitCode.CONFLICT)
    if before.active.version == version:
        refuse(
            f"{strategy} {version} is active already, since activation {before.active.activation}",
            code=ExitCode.CONFLICT,
        )
    return before


def _activate(before: "PromotionBaseline", reason: str, by: str | None) -> int:
    from worker.operations.promotion import RegistryChanged
    from worker.operations.promotion import promote as activate

    try:
        return activate(database_url_of(settings_of()), before, reason=reason, by=by or operator())
    except RegistryChanged as error:
        refuse(error, code=ExitCode.CONFLICT)


def _reason(evidence: "Evidence", criteria: "Sequence[Criterion]", stated: str | None) -> str:
    from worker.operations.comparison.gate import reason

    found = reason(criteria, f"{evidence.basis}, against {evidence.left.version}")
    return f"{stated.strip()} ({found})" if stated and stated.strip() else found


def _as_json(evidence: "Evidence", criteria: "Sequence[Criterion]", number: int | None) -> dict[str, object]:
    found = comparison.as_json(evidence)
    return {
        "passed": all(one.holds for one in criteria),
        "activation": number,
        "criteria": criteria,
        "evidence": found,
    }


def _show(evidence: "Evidence", criteria: "Sequence[Criterion]") -> None:
    comparison.show(evidence)
    typer.echo()
    columns = (Column("criterion", text=True), "value", "limit", "holds")
    print_table(columns, [(one.name, one.value, one.limit, "yes" if one.holds else "no") for one in criteria])


def _end(before: "PromotionBaseline", criteria: "Sequence[Criterion]", number: int | None, served: str) -> None:
    candidate = before.candidate
    name = f"{candidate.strategy} {candidate.version}"
    failed = [str(one) for one in criteria if not one.holds]
    if failed:
        refuse(f"{name} is not promoted: {'; '.join(failed)}", code=ExitCode.CRITERION)
    if number is None:
        typer.echo(f"{name} would be promoted in place of {before.active.version}; nothing was changed", err=True)
    else:
        typer.echo(f"{name} is active, activation {number}, in place of {before.active.version}{served}", err=True)
