"""What the registry contains, as values.

Owns: the rows of the registry and of its history, and what is registered.
Must not know: connections, statements.
Invariant: frozen; every time is in UTC.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Status = Literal["active", "inactive", "testing", "failed"]
Action = Literal["activated", "rolled_back", "deactivated", "failed", "retried", "canary_set", "canary_stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Which model to load, from where, and the digest by which its bytes are trusted."""

    strategy: str
    version: str
    #: Relative to the artifacts directory, absolute inside it, or an MLflow URI.
    path: str
    #: SHA-256 of `bundle.json`, or of a bare model's file, when it was registered; None: none was stated.
    bundle_sha256: str | None


class _RegisteredModel:
    """A row of the registry that names a model to load."""

    __slots__ = ()

    strategy: str
    version: str
    model_path: str
    config: dict[str, Any]

    @property
    def ref(self) -> ModelRef:
        """Return the identity by which the model is loaded."""
        # Anyone may register by SQL: a digest that is no text becomes one that no file has.
        sha256 = self.config.get("bundle_sha256")
        return ModelRef(
            strategy=self.strategy,
            version=self.version,
            path=self.model_path,
            bundle_sha256=str(sha256) if sha256 else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveModel(_RegisteredModel):
    """The version of a strategy that serves from its activation on."""

    strategy: str
    version: str
    #: Number of the activation, increasing over the whole registry.
    activation: int
    #: Relative to the artifacts directory, absolute inside it, or an MLflow URI.
    model_path: str
    mlflow_run_id: str | None
    config: dict[str, Any]
    metrics: dict[str, Any]
    activated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateModel(_RegisteredModel):
    """A version in testing of a strategy that has an active version."""

    strategy: str
    version: str
    #: As of an `ActiveModel`.
    model_path: str
    mlflow_run_id: str | None
    config: dict[str, Any]
    metrics: dict[str, Any]
    #: Share of the requests that it answers as the strategy's canary; 0: it answers none.
    canary_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion(_RegisteredModel):
    """One row of the registry."""

    strategy: str
    version: str
    status: Status
    model_path: str
    mlflow_run_id: str | None
    mlflow_experiment_id: str | None
    metrics: dict[str, Any]
    config: dict[str, Any]
    created_at: datetime
    created_by: str
    #: Start of the latest time in service; None: never served.
    activated_at: datetime | None
    #: End of the latest time in service; None while it serves.
    deactivated_at: datetime | None
    notes: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """One change of a version's status, or of its part as a canary."""

    activation: int
    strategy: str
    version: str
    action: Action
    from_status: Status
    to_status: Status
    #: The strategy's active version before the change; None: there was none.
    from_version: str | None
    #: The strategy's active version after the change; None: there is none.
    to_version: str | None
    #: Who, in their own words.
    actor: str
    #: Who, as the database knows it.
    session_role: str
    reason: str | None
    at: datetime
    #: Of a `canary_set` alone.
    share: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A version to register; it is `testing` until it is activated."""

    strategy: str
    version: str
    model_path: str
    mlflow_run_id: str | None = None
    mlflow_experiment_id: str | None = None
    #: What evaluation measured; NaN and infinities are stored as null, which JSON has instead.
    metrics: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    #: None: the database's own name of the session.
    created_by: str | None = None
    notes: str | None = None
