"""Measures of a changed model against the original."""
