"""What a model is worth: evaluation, walk-forward, outcomes, comparison, drift and tear sheets."""
