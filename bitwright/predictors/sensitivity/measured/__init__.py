"""Sensitivities measured by running the model: one unit at a time, Shapley values, cache types, experts dropped or rarely selected."""
