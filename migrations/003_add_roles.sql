-- Least privilege. Three group roles without login; grant them to the users that connect:
--   signal_reader     workers: read the registry, and call fail_model()
--   signal_publisher  the registry publisher: read and mark the outbox
--   signal_admin      people and pipelines that register and activate versions
-- Every statement can run again without harm, after 002, by `psql -f` as by `signal-worker db migrate`.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['signal_reader', 'signal_publisher', 'signal_admin'] LOOP
        IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            -- Roles belong to the whole server: a migration of another database may have been faster.
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION
    public.guard_model_registry(),
    public.guard_model_activations(),
    public.lock_version(text, text),
    public.active_version(text),
    public.require_reason(text, text),
    public.require_strategy(text),
    public.record_transition(public.model_registry, text, text, text, text, text),
    public.switch_active(text, text, text, text, text),
    public.version_before(text),
    public.activate_model(text, text, text, text),
    public.deactivate_model(text, text, text),
    public.rollback_model(text, text, text),
    public.fail_model(text, text, text, text),
    public.retry_model(text, text, text, text)
    FROM PUBLIC;

GRANT USAGE ON SCHEMA public TO signal_reader, signal_publisher, signal_admin;

GRANT SELECT ON public.model_registry, public.model_activations, public.active_models
    TO signal_reader, signal_admin;
GRANT EXECUTE ON FUNCTION public.fail_model(text, text, text, text) TO signal_reader, signal_admin;

GRANT SELECT ON public.model_activations, public.registry_outbox TO signal_publisher;
GRANT UPDATE (published_at), DELETE ON public.registry_outbox TO signal_publisher;

-- No status, no times: those are the functions' alone.
GRANT INSERT (strategy_name, version, mlflow_run_id, mlflow_experiment_id, model_path, performance_metrics, config,
    created_by, notes) ON public.model_registry TO signal_admin;
GRANT UPDATE (notes) ON public.model_registry TO signal_admin;
GRANT SELECT ON public.registry_outbox TO signal_admin;
GRANT EXECUTE ON FUNCTION
    public.activate_model(text, text, text, text),
    public.deactivate_model(text, text, text),
    public.rollback_model(text, text, text),
    public.retry_model(text, text, text, text)
    TO signal_admin;
