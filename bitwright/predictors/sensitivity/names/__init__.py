"""Sensitivity from the names of a model's tensors alone, learned on other models."""
