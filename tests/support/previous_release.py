"""What the release before the last migration says to the registry, word for word.

Owns: the statements of that release's worker, publisher and command line, with values for a strategy `alpha` whose v1
is active and whose v2 is in testing.
Must not know: the present client.
Invariant: never edited to fit a migration; when a release is made, replaced by what that release says.
"""

#: Which columns each question is read by; a row that lost one would break the release that runs.
QUESTIONS: dict[str, tuple[str, tuple[object, ...], set[str]]] = {
    "active models": (
        """
        SELECT strategy_name AS strategy, version, activation, model_path, mlflow_run_id, config,
            performance_metrics AS metrics, activated_at
        FROM public.active_models
        ORDER BY strategy_name
        """,
        (),
        {"strategy", "version", "activation", "model_path", "mlflow_run_id", "config", "metrics", "activated_at"},
    ),
    "strategies": ("SELECT DISTINCT strategy_name AS strategy FROM public.model_registry ORDER BY 1", (), {"strategy"}),
    "versions": (
        """
        SELECT strategy_name AS strategy, version, status, model_path, mlflow_run_id, mlflow_experiment_id,
            performance_metrics AS metrics, config, created_at, created_by, activated_at, deactivated_at, notes
        FROM public.model_registry WHERE strategy_name = %s AND status = 'testing' ORDER BY id
        """,
        ("alpha",),
        {"strategy", "version", "status", "model_path", "config", "created_by", "notes"},
    ),
    "history": (
        """
        SELECT activation, strategy_name AS strategy, version, action, from_status, to_status, from_version, to_version,
            actor, session_role, reason, at
        FROM public.model_activations
        WHERE strategy_name = %s ORDER BY activation DESC LIMIT 100
        """,
        ("alpha",),
        {"activation", "action", "from_version", "to_version", "actor", "session_role", "reason", "at"},
    ),
    "withdrawn": (
        """
        SELECT
            coalesce((
                SELECT h.action = 'deactivated' FROM public.model_activations AS h
                WHERE h.strategy_name = %s AND h.from_version IS DISTINCT FROM h.to_version
                ORDER BY h.activation DESC LIMIT 1
            ), false)
            OR EXISTS (
                SELECT 1 FROM public.model_registry AS r
                WHERE r.strategy_name = %s AND r.version = %s AND r.status = 'failed'
            ) AS withdrawn
        """,
        ("alpha", "alpha", "v1"),
        {"withdrawn"},
    ),
    "outbox": (
        """
        SELECT o.id, o.type, a.strategy_name AS strategy, a.version, a.activation, a.reason, a.actor, a.at
        FROM public.registry_outbox AS o JOIN public.model_activations AS a USING (activation)
        WHERE o.published_at IS NULL ORDER BY o.id LIMIT 100
        """,
        (),
        {"id", "type", "strategy", "version", "activation", "reason", "actor", "at"},
    ),
}

#: In an order in which each is allowed.
CHANGES: tuple[tuple[str, tuple[object, ...]], ...] = (
    (
        """
        INSERT INTO public.model_registry (strategy_name, version, model_path, mlflow_run_id, mlflow_experiment_id,
            performance_metrics, config, created_by, notes)
        VALUES (%s, %s, %s, %s, %s, '{}', '{}', coalesce(%s::text, session_user), %s)
        """,
        ("alpha", "v8", "models/alpha/v8", None, None, "ada", None),
    ),
    ("SELECT public.activate_model(%s, %s, %s, %s)", ("alpha", "v8", "better", "ada")),
    ("SELECT public.rollback_model(%s, %s, %s)", ("alpha", "worse", "ada")),
    ("SELECT public.fail_model(%s, %s, %s, %s) AS number", ("alpha", "v8", "golden sample differs", None)),
    ("SELECT public.retry_model(%s, %s, %s, %s) AS number", ("alpha", "v8", "mended", "ada")),
    ("SELECT public.deactivate_model(%s, %s, %s) AS number", ("alpha", "pause", "ada")),
    ("UPDATE public.registry_outbox SET published_at = clock_timestamp() WHERE id = %s", (1,)),
    ("DELETE FROM public.registry_outbox WHERE published_at < now() - make_interval(days => %s)", (0,)),
)

#: Event types and history actions that it knows by name; it passes others on without looking.
CONTROL_TYPES = frozenset({"reload", "model.activated", "model.deactivated", "model.failed"})
