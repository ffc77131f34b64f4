"""Checks against other people's code that needs an environment of its own: outside CI, run by hand."""
