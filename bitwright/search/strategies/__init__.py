"""Strategies: ask for plans to be measured, and learn from what they are told."""
