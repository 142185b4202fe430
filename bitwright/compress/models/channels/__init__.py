"""Channels between the matrices of a model, and other weights of the same function."""
