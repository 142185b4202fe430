"""Surrogate models that predict the divergence of whole plans from measured ones."""
