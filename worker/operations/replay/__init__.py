"""Published vectors computed again: from the stream or the archive, through their lineage, to a verdict."""
