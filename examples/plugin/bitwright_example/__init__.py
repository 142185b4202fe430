"""One part of your own of each kind: the code of `docs/extending.md`."""
