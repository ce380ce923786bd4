-- A version that fails while it is active gives way to the one that was active before it, by history, in the same
-- transaction and as a numbered rollback of its own. Workers that served that one all along and workers that start
-- afterwards then serve the same. Where there is none, or it failed too, nothing is active; deactivate_model() is how a
-- strategy is stopped.
-- Every statement can run again without harm, after 004, by `psql -f` as by `signal-worker db migrate`.

-- Workers call it, several at once for one bad bundle: the first one counts, the others learn its number.
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
