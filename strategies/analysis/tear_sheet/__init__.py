"""Tear sheets: one bundle's evaluation as a page that people read."""
