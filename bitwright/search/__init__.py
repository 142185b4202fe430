"""How to choose."""
