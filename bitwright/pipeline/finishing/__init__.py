"""Finish a plan: requantize, apply the steps after quantization, and build the file."""
