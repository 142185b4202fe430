"""Solvers of a table of losses under a budget."""
