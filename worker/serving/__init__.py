"""The hot path: one request in, one outcome out."""
