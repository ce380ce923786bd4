"""The registry's client.

Owns: every question to the registry and every change of it.
Must not know: how a version is proven or published; the state machine (the database's own functions enforce it).
Invariant: one connection, confined to one thread, made on first use and again when it is lost. A question that met a
lost connection is asked once more; a change is sent once, since its answer may be what was lost.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, LiteralString, Self

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from worker.errors import InvalidRegistration, RegistryUnavailable, UnknownVersion, VersionExists
from worker.registry.models import Activation, ActiveModel, CandidateModel, ModelVersion, Registration
from worker.registry.postgres import STATEMENT_MS, Connection, answering, connect

Rows = list[DictRow]

__all__ = ["Activation", "ActiveModel", "CandidateModel", "ModelVersion", "Registration", "Registry"]

_ACTIVE: LiteralString = """
    SELECT strategy_name AS strategy, version, activation, model_path, mlflow_run_id, config,
        performance_metrics AS metrics, activated_at
    FROM public.active_models
"""
_CANDIDATES: LiteralString = """
    SELECT r.strategy_name AS strategy, r.version, r.model_path, r.mlflow_run_id, r.config,
        r.performance_metrics AS metrics, coalesce(c.share, 0) AS canary_share
    FROM public.model_registry AS r
    JOIN public.active_models AS a USING (strategy_name)
    LEFT JOIN public.canaries AS c ON c.strategy_name = r.strategy_name AND c.version = r.version
    WHERE r.status = 'testing'
    ORDER BY r.strategy_name, c.share IS NULL, r.id DESC
"""
_VERSION: LiteralString = """
    SELECT strategy_name AS strategy, version, status, model_path, mlflow_run_id, mlflow_experiment_id,
        performance_metrics AS metrics, config, created_at, created_by, activated_at, deactivated_at, notes
    FROM public.model_registry
"""
_HISTORY: LiteralString = """
    SELECT activation, strategy_name AS strategy, version, action, from_status, to_status, from_version, to_version,
        actor, session_role, reason, at, share
    FROM public.model_activations
"""
_REGISTER: LiteralString = """
    INSERT INTO public.model_registry (strategy_name, version, model_path, mlflow_run_id, mlflow_experiment_id,
        performance_metrics, config, created_by, notes)
    VALUES (%s, %s, %s, %s, %s, %s, %s, coalesce(%s::text, session_user), %s)
"""


#: What the table's constraints ask of a field, by the name of the constraint.
_RULES = {
    "model_registry_strategy_name_form": ("strategy", "a lower-case letter, then up to 63 of a-z, 0-9 and _"),
    "model_registry_version_form": ("version", "a letter or digit, then up to 63 of A-Z, a-z, 0-9 and ._+-"),
    "model_registry_mlflow_run_id_form": ("mlflow_run_id", "1 to 64 of A-Z, a-z, 0-9, _ and -"),
    "model_registry_mlflow_experiment_id_form": ("mlflow_experiment_id", "1 to 64 of A-Z, a-z, 0-9, _ and -"),
    "model_registry_model_path_form": ("model_path", "1 to 1024 printable characters, no part of them .."),
    "model_registry_performance_metrics_object": ("metrics", "a JSON object"),
    "model_registry_config_object": ("config", "a JSON object"),
    "model_registry_created_by_length": ("created_by", "1 to 200 characters"),
    "model_registry_notes_length": ("notes", "at most 4000 characters"),
}


class Registry:
    """The model registry, for one thread.

    Every method raises `RegistryUnavailable` when the database cannot be asked now, and what is documented with it.
    """

    def __init__(self, database_url: str, *, name: str = "signal-worker", statement_ms: int = STATEMENT_MS) -> None:
        """Take where the registry is; nothing is connected before the first question."""
        self._database_url, self._name, self._statement_ms = database_url, name, statement_ms
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection, if there is one; the next question makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def active(self, strategy: str) -> ActiveModel | None:
        """Return the active version of a strategy, or None if no version of it is active."""
        rows = self._ask(_ACTIVE + " WHERE strategy_name = %s", (strategy,))
        return ActiveModel(**rows[0]) if rows else None

    def active_models(self) -> dict[str, ActiveModel]:
        """Return the active version of every strategy that has one, by strategy."""
        rows = self._ask(_ACTIVE + " ORDER BY strategy_name")
        return {row["strategy"]: ActiveModel(**row) for row in rows}

    def strategies(self) -> tuple[str, ...]:
        """Return the name of every strategy that has a version, whatever its status, in order of name."""
        rows = self._ask("SELECT DISTINCT strategy_name AS strategy FROM public.model_registry ORDER BY 1")
        return tuple(row["strategy"] for row in rows)

    def list(self, strategy: str | None = None) -> tuple[ModelVersion, ...]:
        """Return every version, of one strategy or of all, in the order in which they were registered."""
        rows = self._ask(
            _VERSION + " WHERE %(strategy)s::text IS NULL OR strategy_name = %(strategy)s ORDER BY strategy_name, id",
            {"strategy": strategy},
        )
        return tuple(ModelVersion(**row) for row in rows)

    def testing(self, strategy: str) -> tuple[ModelVersion, ...]:
        """Return the strategy's versions in `testing`, in the order in which they were registered."""
        rows = self._ask(_VERSION + " WHERE strategy_name = %s AND status = 'testing' ORDER BY id", (strategy,))
        return tuple(ModelVersion(**row) for row in rows)

    def candidates(self) -> dict[str, tuple[CandidateModel, ...]]:
        """Return the versions in `testing` of every strategy that has an active one: its canary, then newest first."""
        found: dict[str, tuple[CandidateModel, ...]] = {}
        for row in self._ask(_CANDIDATES):
            found[row["strategy"]] = (*found.get(row["strategy"], ()), CandidateModel(**row))
        return found

    def show(self, strategy: str, version: str) -> ModelVersion:
        """Return one version.

        Raises:
            UnknownVersion: The registry does not have it.
        """
        rows = self._ask(_VERSION + " WHERE strategy_name = %s AND version = %s", (strategy, version))
        if not rows:
            raise UnknownVersion(f"strategy {strategy} has no version {version}")
        return ModelVersion(**rows[0])

    def history(self, strategy: str | None = None, *, limit: int = 100) -> tuple[Activation, ...]:
        """Return the latest changes of status, of one strategy or of all, newest first."""
        rows = self._ask(
            _HISTORY
            + " WHERE %(strategy)s::text IS NULL OR strategy_name = %(strategy)s"
            + " ORDER BY activation DESC LIMIT %(limit)s",
            {"strategy": strategy, "limit": limit},
        )
        return tuple(Activation(**row) for row in rows)

    def withdrawn(self, strategy: str, serving: str | None = None) -> bool:
        """Return whether what serves of a strategy without an active version must stop serving.

        So it is when the latest version was deactivated, and when the serving version itself was failed; not when
        another version was failed, after which what served before stays.

        Args:
            strategy: A strategy of which no version is active.
            serving: The version that the asker still serves, if it knows.
        """
        rows = self._ask(
            """
            SELECT
                coalesce((
                    SELECT h.action = 'deactivated' FROM public.model_activations AS h
                    WHERE h.strategy_name = %(strategy)s AND h.from_version IS DISTINCT FROM h.to_version
                    ORDER BY h.activation DESC LIMIT 1
                ), false)
                OR EXISTS (
                    SELECT 1 FROM public.model_registry AS r
                    WHERE r.strategy_name = %(strategy)s AND r.version = %(serving)s AND r.status = 'failed'
                ) AS withdrawn
            """,
            {"strategy": strategy, "serving": serving},
        )
        return bool(rows[0]["withdrawn"])

    def register(self, registration: Registration) -> ModelVersion:
        """Add a version in `testing`.

        Raises:
            VersionExists: The strategy has this version already.
            InvalidRegistration: A name, a path or a document that the table does not take.
        """
        values = (
            registration.strategy,
            registration.version,
            registration.model_path,
            registration.mlflow_run_id,
            registration.mlflow_experiment_id,
            Jsonb(_json(registration.metrics)),
            Jsonb(_json(registration.config)),
            registration.created_by,
            registration.notes,
        )
        try:
            self._change(_REGISTER, values)
        except VersionExists as error:
            raise VersionExists(f"{registration.strategy} {registration.version} is registered already") from error
        except InvalidRegistration as error:
            raise InvalidRegistration(_explained(registration, error), error.constraint) from error
        return self.show(registration.strategy, registration.version)

    def activate(self, strategy: str, version: str, by: str | None = None, reason: str | None = None) -> ActiveModel:
        """Let a version serve from now on, in place of the one that did; the active version keeps its activation.

        Raises:
            UnknownVersion: The registry does not have it.
            IllegalTransition: It is failed.
        """
        return self._switch("SELECT public.activate_model(%s, %s, %s, %s)", (strategy, version, reason, by))

    def rollback(self, strategy: str, by: str | None = None, reason: str | None = None) -> ActiveModel:
        """Let the version serve that was active before, by history.

        Raises:
            UnknownVersion: The strategy has no versions.
            IllegalTransition: There is no earlier one.
        """
        return self._switch("SELECT public.rollback_model(%s, %s, %s)", (strategy, reason, by))

    def deactivate(self, strategy: str, by: str | None = None, reason: str | None = None) -> Activation:
        """Let no version of the strategy serve.

        Raises:
            UnknownVersion: The strategy has no versions.
            IllegalTransition: None is active.
        """
        return self._step("SELECT public.deactivate_model(%s, %s, %s) AS number", (strategy, reason, by))

    def fail(self, strategy: str, version: str, reason: str, by: str | None = None) -> Activation:
        """Mark a version as one that must not serve; of several calls the first one counts.

        Raises:
            UnknownVersion: The registry does not have it.
            ReasonMissing: The reason is empty.
        """
        return self._step("SELECT public.fail_model(%s, %s, %s, %s) AS number", (strategy, version, reason, by))

    def fail_candidate(self, strategy: str, version: str, reason: str) -> bool:
        """Mark a version as one that must not serve if it is in testing still, and return whether it was."""
        rows = self._change(
            """
            SELECT public.fail_model(r.strategy_name, r.version, %s) AS number FROM public.model_registry AS r
            WHERE r.strategy_name = %s AND r.version = %s AND r.status = 'testing'
            """,
            (reason, strategy, version),
        )
        return bool(rows)

    def retry(self, strategy: str, version: str, reason: str, by: str | None = None) -> Activation:
        """Put a failed version back to `testing`.

        Raises:
            UnknownVersion: The registry does not have it.
            IllegalTransition: It is not failed.
            ReasonMissing: The reason is empty.
        """
        return self._step("SELECT public.retry_model(%s, %s, %s, %s) AS number", (strategy, version, reason, by))

    def set_canary(
        self, strategy: str, version: str, share: float, *, reason: str, by: str | None = None
    ) -> Activation:
        """Let a version in `testing` answer a share of the strategy's requests, in place of the canary there is.

        Raises:
            UnknownVersion: The registry does not have it.
            IllegalTransition: It is not in testing, or no version of the strategy is active.
            ReasonMissing: The reason is empty.
            ImpossibleShare: The share is not between 0 and 1.
        """
        return self._step(
            "SELECT public.set_canary(%s, %s, %s, %s, %s) AS number", (strategy, version, float(share), reason, by)
        )

    def stop_canary(self, strategy: str, by: str | None = None, reason: str | None = None) -> Activation:
        """Let the active version answer every request of the strategy again.

        Raises:
            UnknownVersion: The strategy has no versions.
            IllegalTransition: It has no canary.
        """
        return self._step("SELECT public.stop_canary(%s, %s, %s) AS number", (strategy, reason, by))

    def _switch(self, statement: LiteralString, values: Sequence[object]) -> ActiveModel:
        # One transaction: its lock keeps the next activation out until the answer is read.
        with self._answering(self._checked()) as connection, connection.transaction():
            connection.execute(statement, values)
            row = connection.execute(_ACTIVE + " WHERE strategy_name = %s", (values[0],)).fetchone()
        if row is None:
            raise RegistryUnavailable(f"the activation of {values[0]} left no active version")
        return ActiveModel(**row)

    def _step(self, statement: LiteralString, values: Sequence[object]) -> Activation:
        number = self._change(statement, values)[0]["number"]
        return Activation(**self._ask(_HISTORY + " WHERE activation = %s", (number,))[0])

    def _ask(self, question: LiteralString, values: Sequence[object] | Mapping[str, object] | None = None) -> Rows:
        try:
            with self._answering(self._open()) as connection:
                return connection.execute(question, values).fetchall()
        except RegistryUnavailable:
            # A connection that was lost since its last use shows so only now.
            if self._connection is None or not self._connection.broken:
                raise
        with self._answering(self._open()) as connection:
            return connection.execute(question, values).fetchall()

    def _change(self, statement: LiteralString, values: Sequence[object]) -> Rows:
        with self._answering(self._checked()) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def _answering(self, connection: Connection) -> AbstractContextManager[Connection]:
        return answering(connection, self._statement_ms)

    def _checked(self) -> Connection:
        """Return a connection that answered just now."""
        self._ask("SELECT 1 AS alive")
        return self._open()

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._database_url, self._name, statement_ms=self._statement_ms)
        return self._connection


def _explained(registration: Registration, error: InvalidRegistration) -> str:
    if error.constraint not in _RULES:
        return str(error)
    field, rule = _RULES[error.constraint]
    return f"{field} must be {rule}; was {str(getattr(registration, field))[:200]!r}"


def _json(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return the value with what JSON cannot spell as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return value
