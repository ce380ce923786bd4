"""How near the engine's features are to Qlib's: cells, predictions, books. Research only."""
