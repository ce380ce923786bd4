-- Canaries: a version in testing that answers a share of its strategy's requests, beside the active one.
-- A canary is its history: the latest canary_set of a strategy holds until a later row ends it. So there is at most
-- one a strategy, and it ends by itself when its version is activated, failed or retried, and when no version is
-- active. The state machine does not know it: the version stays in testing.
--   SW005 a share that cannot be
-- Every statement can run again without harm, after 003, by `psql -f` as by `signal-worker db migrate`.

-- Null but for canary_set; what an earlier release writes and reads is as it was.
ALTER TABLE public.model_activations ADD COLUMN IF NOT EXISTS share double precision;

-- Each replaced in one statement, so that no row is ever unchecked.
ALTER TABLE public.model_activations
    DROP CONSTRAINT IF EXISTS model_activations_action_known,
    ADD CONSTRAINT model_activations_action_known CHECK (action IN (
        'activated', 'rolled_back', 'deactivated', 'failed', 'retried', 'canary_set', 'canary_stopped'));
ALTER TABLE public.model_activations
    DROP CONSTRAINT IF EXISTS model_activations_share_of_canary,
    ADD CONSTRAINT model_activations_share_of_canary
        CHECK ((action = 'canary_set') = (share IS NOT NULL) AND (share IS NULL OR (share > 0 AND share < 1)));

CREATE OR REPLACE VIEW public.canaries AS
SELECT h.strategy_name, h.version, h.share, h.activation, h.actor, h.reason, h.at AS since
FROM public.model_activations AS h
WHERE h.action = 'canary_set' AND NOT EXISTS (
    SELECT 1 FROM public.model_activations AS later
    WHERE later.strategy_name = h.strategy_name AND later.activation > h.activation
        AND (later.version = h.version OR later.action = 'canary_set' OR later.to_version IS NULL)
);

-- The caller holds the lock on activation_counter.
CREATE OR REPLACE FUNCTION public.record_canary(
    candidate public.model_registry, action text, share double precision, reason text, actor text
) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number bigint;
    event bigint;
    active text := public.active_version(candidate.strategy_name);
BEGIN
    UPDATE public.activation_counter SET last_activation = last_activation + 1
    RETURNING last_activation INTO number;
    INSERT INTO public.model_activations
        (activation, strategy_name, version, action, from_status, to_status, from_version, to_version, share, actor,
         reason, at)
    VALUES
        (number, candidate.strategy_name, candidate.version, record_canary.action, candidate.status,
         candidate.status, active, active, record_canary.share,
         left(coalesce(substring(record_canary.actor FROM '\S.*'), session_user), 200),
         left(substring(record_canary.reason FROM '\S.*'), 2000), clock_timestamp());
    INSERT INTO public.registry_outbox (activation, type) VALUES (number, 'reload') RETURNING id INTO event;
    PERFORM pg_notify('model_registry', event::text);
    RETURN number;
END
$$;

-- In place of the strategy's canary, if it has one; the same version at the same share keeps its number.
CREATE OR REPLACE FUNCTION public.set_canary(
    strategy text, version text, share double precision, reason text, actor text DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    candidate public.model_registry%ROWTYPE;
    number bigint;
BEGIN
    PERFORM public.require_reason('set_canary()', reason);
    -- NaN is greater than every number here.
    IF share IS NULL OR share <= 0 OR share >= 1 THEN
        RAISE EXCEPTION 'the share of a canary lies between 0 and 1, both left out; was %', share
            USING ERRCODE = 'SW005';
    END IF;
    candidate := public.lock_version(strategy, version);
    IF candidate.status <> 'testing' THEN
        RAISE EXCEPTION '% % is %, only a version in testing can be a canary', strategy, version, candidate.status
            USING ERRCODE = 'SW002';
    END IF;
    IF public.active_version(strategy) IS NULL THEN
        RAISE EXCEPTION 'strategy % has no active version beside which % could be a canary', strategy, version
            USING ERRCODE = 'SW002';
    END IF;
    SELECT c.activation INTO number FROM public.canaries AS c
    WHERE c.strategy_name = candidate.strategy_name AND c.version = candidate.version
        AND c.share = set_canary.share;
    IF FOUND THEN
        RAISE NOTICE '% % is a canary at % already, since number %', strategy, version, share, number;
        RETURN number;
    END IF;
    RETURN public.record_canary(candidate, 'canary_set', share, reason, actor);
END
$$;

CREATE OR REPLACE FUNCTION public.stop_canary(strategy text, reason text DEFAULT NULL, actor text DEFAULT NULL)
RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    candidate public.model_registry%ROWTYPE;
BEGIN
    PERFORM 1 FROM public.activation_counter FOR UPDATE;
    PERFORM public.require_strategy(strategy);
    SELECT r.* INTO candidate FROM public.model_registry AS r
    JOIN public.canaries AS c ON c.strategy_name = r.strategy_name AND c.version = r.version
    WHERE r.strategy_name = strategy;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'strategy % has no canary to stop', strategy USING ERRCODE = 'SW002';
    END IF;
    RETURN public.record_canary(candidate, 'canary_stopped', NULL, reason, actor);
END
$$;

REVOKE ALL ON FUNCTION
    public.record_canary(public.model_registry, text, double precision, text, text),
    public.set_canary(text, text, double precision, text, text),
    public.stop_canary(text, text, text)
    FROM PUBLIC;

-- To the roles that exist; see 003.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT * FROM (VALUES
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

COMMENT ON VIEW public.canaries IS
    'The version in testing that answers a share of a strategy''s requests; by set_canary() and stop_canary() alone.';
