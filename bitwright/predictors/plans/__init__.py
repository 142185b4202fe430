"""Predictors of whole plans, which learn from measured ones."""
