"""The edges: streams, registry, processes, command line."""
