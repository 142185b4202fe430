"""Roundings of weights to the levels of a grid."""
