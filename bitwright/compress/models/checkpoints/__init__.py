"""Checkpoints of safetensors, and the files that lie beside them."""
