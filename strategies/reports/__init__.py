"""Reports of models that people read: what a bundle was worth, as a page."""
