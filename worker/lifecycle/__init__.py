"""Which model serves in this worker: control channel, registry compared, bundles proven."""
