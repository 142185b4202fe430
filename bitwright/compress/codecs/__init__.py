"""Codecs: quantize weights to the bytes of a format, and dequantize them."""
