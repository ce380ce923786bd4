"""Connections to the stream server and the scripts that run on it."""
