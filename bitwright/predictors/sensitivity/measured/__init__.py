"""Sensitivities that are measured one unit at a time."""
