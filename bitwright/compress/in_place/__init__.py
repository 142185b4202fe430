"""Changes of a torch module that last as long as a `with` block."""
