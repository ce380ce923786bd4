"""Model bundles: their type, their files, and the training that makes them."""
