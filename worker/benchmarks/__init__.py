"""Measurements of this machine: the engine, its rivals, the worker. Nothing here serves."""
