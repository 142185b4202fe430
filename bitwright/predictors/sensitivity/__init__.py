"""Sensitivities: tables of the cost of each unit in each format."""
