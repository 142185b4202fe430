"""Solvers that minimise the summed loss of a sensitivity table under a budget."""
