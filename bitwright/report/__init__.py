"""A finished run as tables and one self-contained page."""
