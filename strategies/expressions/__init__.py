"""Qlib expressions: parse, share, compile, evaluate."""
