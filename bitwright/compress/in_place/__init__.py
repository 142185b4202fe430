"""Temporary changes of a torch module, undone at the end of a `with` block."""
