"""Checkpoints that are quantized already: which tensors hold a weight, and what they stand for; one file for each published layout."""
