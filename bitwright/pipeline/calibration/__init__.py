"""Calibration text: mixtures of texts, and long sequences for the types of the KV cache."""
