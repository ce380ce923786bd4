"""Which model serves: registry, control channel, proof, publisher."""
