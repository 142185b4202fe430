"""Calibration and held-out text as tokens, and statistics of a forward pass over it."""
