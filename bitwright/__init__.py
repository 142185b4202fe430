"""Bitwright: which precision should every layer of a model get within a memory budget, and the finished model."""

__version__ = "0.1.0"
