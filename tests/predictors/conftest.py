"""Fixtures of loaded models, shared with `tests/objectives`."""

from tests.objectives.conftest import dense, mixtral, tied

__all__ = ["dense", "mixtral", "tied"]
