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
            EXCEPTION
                -- Roles belong to the whole server: a migration of another database may have been faster.
                WHEN duplicate_object OR unique_violation THEN NULL;
                -- A plain owner without CREATEROLE goes on without them; who may creates them, and the grants follow.
                WHEN insufficient_privilege THEN
                    RAISE WARNING 'role % does not exist and % may not create it', wanted, current_user;
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

-- To the roles that exist.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT * FROM (VALUES
            ('signal_reader', 'USAGE ON SCHEMA public'),
            ('signal_publisher', 'USAGE ON SCHEMA public'),
            ('signal_admin', 'USAGE ON SCHEMA public'),
            ('signal_reader', 'SELECT ON public.model_registry, public.model_activations, public.active_models'),
            ('signal_admin', 'SELECT ON public.model_registry, public.model_activations, public.active_models'),
            ('signal_reader', 'EXECUTE ON FUNCTION public.fail_model(text, text, text, text)'),
            ('signal_admin', 'EXECUTE ON FUNCTION public.fail_model(text, text, text, text)'),
            ('signal_publisher', 'SELECT ON public.model_activations, public.registry_outbox'),
            ('signal_publisher', 'UPDATE (published_at), DELETE ON public.registry_outbox'),
            -- No status, no times: those are the functions' alone.
            ('signal_admin', 'INSERT (strategy_name, version, mlflow_run_id, mlflow_experiment_id, model_path, '
                'performance_metrics, config, created_by, notes) ON public.model_registry'),
            ('signal_admin', 'UPDATE (notes) ON public.model_registry'),
            ('signal_admin', 'SELECT ON public.registry_outbox'),
            ('signal_admin', 'EXECUTE ON FUNCTION public.activate_model(text, text, text, text)'),
            ('signal_admin', 'EXECUTE ON FUNCTION public.deactivate_model(text, text, text)'),
            ('signal_admin', 'EXECUTE ON FUNCTION public.rollback_model(text, text, text)'),
            ('signal_admin', 'EXECUTE ON FUNCTION public.retry_model(text, text, text, text)')
        ) AS v (role, privilege) JOIN pg_catalog.pg_roles AS r ON r.rolname = v.role
    LOOP
        EXECUTE format('GRANT %s TO %I', given.privilege, given.role);
    END LOOP;
END
$$;
