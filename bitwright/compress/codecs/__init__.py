"""Codecs: weights to bytes of a format and back."""
