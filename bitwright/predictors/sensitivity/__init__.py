"""Sensitivities: tables of what each format of each unit costs."""
