"""Model bundles: their type, their files, their training and their evaluation."""
