-- The model registry: one row a version, at most one active version a strategy.
-- Every statement can run again without harm, by `psql -f` as by `signal-worker db migrate`.

CREATE TABLE IF NOT EXISTS public.model_registry (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    strategy_name text NOT NULL
        CONSTRAINT model_registry_strategy_name_form CHECK (strategy_name COLLATE "C" ~ '^[a-z][a-z0-9_]{0,63}$'),
    version text NOT NULL
        CONSTRAINT model_registry_version_form CHECK (version COLLATE "C" ~ '^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$'),
    mlflow_run_id text
        CONSTRAINT model_registry_mlflow_run_id_form CHECK (mlflow_run_id COLLATE "C" ~ '^[A-Za-z0-9_-]{1,64}$'),
    mlflow_experiment_id text
        CONSTRAINT model_registry_mlflow_experiment_id_form
        CHECK (mlflow_experiment_id COLLATE "C" ~ '^[A-Za-z0-9_-]{1,64}$'),
    -- Relative to the artifacts directory, absolute inside it, or an MLflow URI; it never climbs out by `..`.
    model_path text NOT NULL
        CONSTRAINT model_registry_model_path_form CHECK (
            length(model_path) BETWEEN 1 AND 1024
            AND model_path !~ '[[:cntrl:]]'
            AND model_path !~ '(^|/)\.\.(/|$)'
        ),
    status text NOT NULL DEFAULT 'testing'
        CONSTRAINT model_registry_status_known CHECK (status IN ('active', 'inactive', 'testing', 'failed')),
    performance_metrics jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT model_registry_performance_metrics_object CHECK (jsonb_typeof(performance_metrics) = 'object'),
    config jsonb NOT NULL DEFAULT '{}'
        CONSTRAINT model_registry_config_object CHECK (jsonb_typeof(config) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    activated_at timestamptz,
    deactivated_at timestamptz,
    created_by text NOT NULL DEFAULT session_user
        CONSTRAINT model_registry_created_by_length CHECK (length(created_by) BETWEEN 1 AND 200),
    notes text
        CONSTRAINT model_registry_notes_length CHECK (length(notes) <= 4000),
    CONSTRAINT model_registry_strategy_version_unique UNIQUE (strategy_name, version),
    CONSTRAINT model_registry_active_has_times
        CHECK (status <> 'active' OR (activated_at IS NOT NULL AND deactivated_at IS NULL))
);

CREATE UNIQUE INDEX IF NOT EXISTS model_registry_one_active
    ON public.model_registry (strategy_name) WHERE status = 'active';

CREATE OR REPLACE FUNCTION public.activate_model(strategy text, version text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    target public.model_registry%ROWTYPE;
BEGIN
    -- All versions of the strategy, in one order: two activations at once would each see the other's old state.
    PERFORM 1 FROM public.model_registry AS r
    WHERE r.strategy_name = activate_model.strategy ORDER BY r.id FOR UPDATE;

    SELECT r.* INTO target FROM public.model_registry AS r
    WHERE r.strategy_name = activate_model.strategy AND r.version = activate_model.version;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'strategy % has no version %', strategy, version USING ERRCODE = 'SW001';
    END IF;
    IF target.status = 'failed' THEN
        RAISE EXCEPTION '% % is failed, so it cannot become active', strategy, version USING ERRCODE = 'SW002';
    END IF;
    IF target.status = 'active' THEN
        RAISE NOTICE '% % is already active', strategy, version;
        RETURN;
    END IF;

    UPDATE public.model_registry AS r SET status = 'inactive', deactivated_at = clock_timestamp()
    WHERE r.strategy_name = activate_model.strategy AND r.status = 'active';
    UPDATE public.model_registry AS r
    SET status = 'active', activated_at = clock_timestamp(), deactivated_at = NULL
    WHERE r.id = target.id;
END
$$;

REVOKE ALL ON FUNCTION public.activate_model(text, text) FROM PUBLIC;

COMMENT ON TABLE public.model_registry IS
    'One row a model version; at most one active a strategy. Change the status by activate_model() alone.';
