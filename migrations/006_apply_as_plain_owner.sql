-- A plain owner may apply and use the registry, as on a managed server, where nobody is a superuser: a function that sets
-- signal_registry.transition as an option of its own needs one. And the roles of 003 may be created afterwards, by
-- whoever may: grant_registry_roles() then gives them what is theirs; `signal-worker db migrate` calls it each time.
-- Every statement can run again without harm, after 005, by `psql -f` as by `signal-worker db migrate`.

CREATE OR REPLACE FUNCTION public.switch_active(
    strategy text, version text, action text, reason text, actor text
) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target public.model_registry%ROWTYPE;
    before text;
    number bigint;
BEGIN
    target := public.lock_version(strategy, version);
    IF target.status = 'active' THEN
        SELECT a.activation INTO number FROM public.active_models AS a WHERE a.strategy_name = strategy;
        RAISE NOTICE '% % is already active, since activation %', strategy, version, number;
        RETURN number;
    END IF;
    before := public.active_version(strategy);
    PERFORM set_config('signal_registry.transition', 'on', true);
    UPDATE public.model_registry AS r SET status = 'inactive', deactivated_at = clock_timestamp()
    WHERE r.strategy_name = strategy AND r.status = 'active';
    UPDATE public.model_registry AS r
    SET status = 'active', activated_at = clock_timestamp(), deactivated_at = NULL
    WHERE r.id = target.id;
    PERFORM set_config('signal_registry.transition', '', true);
    RETURN public.record_transition(target, action, 'active', before, reason, actor);
END
$$;

CREATE OR REPLACE FUNCTION public.deactivate_model(
    strategy text, reason text DEFAULT NULL, actor text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target public.model_registry%ROWTYPE;
BEGIN
    PERFORM 1 FROM public.activation_counter FOR UPDATE;
    SELECT r.* INTO target FROM public.model_registry AS r
    WHERE r.strategy_name = strategy AND r.status = 'active';
    IF NOT FOUND THEN
        PERFORM public.require_strategy(strategy);
        RAISE EXCEPTION 'strategy % has no active version to deactivate', strategy USING ERRCODE = 'SW002';
    END IF;
    PERFORM set_config('signal_registry.transition', 'on', true);
    UPDATE public.model_registry AS r SET status = 'inactive', deactivated_at = clock_timestamp()
    WHERE r.id = target.id;
    PERFORM set_config('signal_registry.transition', '', true);
    RETURN public.record_transition(target, 'deactivated', 'inactive', target.version, reason, actor);
END
$$;

CREATE OR REPLACE FUNCTION public.fail_model(strategy text, version text, reason text, actor text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target public.model_registry%ROWTYPE;
    before text;
    fallback text;
    number bigint;
BEGIN
    PERFORM public.require_reason('fail_model()', reason);
    target := public.lock_version(strategy, version);
    IF target.status = 'failed' THEN
        SELECT max(h.activation) INTO number FROM public.model_activations AS h
        WHERE h.strategy_name = strategy AND h.version = target.version AND h.action = 'failed';
        RAISE NOTICE '% % is already failed, since activation %', strategy, version, number;
        RETURN number;
    END IF;
    before := public.active_version(strategy);
    PERFORM set_config('signal_registry.transition', 'on', true);
    UPDATE public.model_registry AS r
    SET status = 'failed',
        deactivated_at = CASE r.status WHEN 'active' THEN clock_timestamp() ELSE r.deactivated_at END
    WHERE r.id = target.id;
    PERFORM set_config('signal_registry.transition', '', true);
    number := public.record_transition(target, 'failed', 'failed', before, reason, actor);
    IF target.status = 'active' THEN
        fallback := public.version_before(strategy);
        IF fallback IS NOT NULL THEN
            PERFORM public.switch_active(strategy, fallback, 'rolled_back', version || ' failed: ' || reason, actor);
        END IF;
    END IF;
    RETURN number;
END
$$;

CREATE OR REPLACE FUNCTION public.retry_model(strategy text, version text, reason text, actor text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target public.model_registry%ROWTYPE;
BEGIN
    PERFORM public.require_reason('retry_model()', reason);
    target := public.lock_version(strategy, version);
    IF target.status <> 'failed' THEN
        RAISE EXCEPTION '% % is %, only a failed version can be retried', strategy, version, target.status
            USING ERRCODE = 'SW002';
    END IF;
    PERFORM set_config('signal_registry.transition', 'on', true);
    UPDATE public.model_registry AS r SET status = 'testing' WHERE r.id = target.id;
    PERFORM set_config('signal_registry.transition', '', true);
    RETURN public.record_transition(
        target, 'retried', 'testing', public.active_version(strategy), reason, actor);
END
$$;

CREATE OR REPLACE FUNCTION public.grant_registry_roles() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
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
            ('signal_admin', 'EXECUTE ON FUNCTION public.retry_model(text, text, text, text)'),
            ('signal_reader', 'SELECT ON public.canaries'),
            ('signal_admin', 'SELECT ON public.canaries'),
            ('signal_admin', 'EXECUTE ON FUNCTION public.set_canary(text, text, double precision, text, text)'),
            ('signal_admin', 'EXECUTE ON FUNCTION public.stop_canary(text, text, text)')
        ) AS v (role, privilege) JOIN pg_catalog.pg_roles AS r ON r.rolname = v.role
    LOOP
        EXECUTE format('GRANT %s TO %I', given.privilege, given.role);
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION public.grant_registry_roles() FROM PUBLIC;

DO $$
BEGIN
    PERFORM public.grant_registry_roles();
END
$$;
