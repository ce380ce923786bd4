"""Bars, sessions and snapshots."""
