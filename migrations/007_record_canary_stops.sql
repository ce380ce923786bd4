-- A canary that ends because another version failed or was deactivated has a row of its own in the history, which names
-- the cause. Until now such a stop could only be inferred from the other version's row.
-- Every statement can run again without harm, after 006, by `psql -f` as by `signal-worker db migrate`.

-- The caller holds the lock on activation_counter and has changed the status already.
CREATE OR REPLACE FUNCTION public.record_transition(
    changed public.model_registry, action text, to_status text, from_version text, reason text, actor text
) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number bigint;
    event bigint;
    canary public.model_registry%ROWTYPE;
BEGIN
    SELECT r.* INTO canary FROM public.canaries AS c JOIN public.model_registry AS r USING (strategy_name, version)
    WHERE c.strategy_name = changed.strategy_name AND c.version <> changed.version;
    UPDATE public.activation_counter SET last_activation = last_activation + 1
    RETURNING last_activation INTO number;
    INSERT INTO public.model_activations
        (activation, strategy_name, version, action, from_status, to_status, from_version, to_version, actor,
         reason, at)
    VALUES
        (number, changed.strategy_name, changed.version, record_transition.action, changed.status,
         record_transition.to_status, record_transition.from_version, public.active_version(changed.strategy_name),
         left(coalesce(substring(record_transition.actor FROM '\S.*'), session_user), 200),
         left(substring(record_transition.reason FROM '\S.*'), 2000), clock_timestamp());
    INSERT INTO public.registry_outbox (activation, type)
    VALUES (number, CASE record_transition.action
        WHEN 'deactivated' THEN 'model.deactivated'
        WHEN 'failed' THEN 'model.failed'
        WHEN 'retried' THEN 'reload'
        ELSE 'model.activated' END)
    RETURNING id INTO event;
    -- A hint alone: the publisher reads the row, so the payload stays far below the server's 8,000 bytes.
    PERFORM pg_notify('model_registry', event::text);
    IF canary.id IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM public.canaries AS c WHERE c.strategy_name = changed.strategy_name
    ) THEN
        PERFORM public.record_canary(canary, 'canary_stopped', NULL,
            format('%s was %s while it was active', changed.version, record_transition.action)
                || coalesce(': ' || substring(record_transition.reason FROM '\S.*'), ''), actor);
    END IF;
    RETURN number;
END
$$;
