"""Example plug-in: one part of each kind, the code of `docs/extending.md`."""
