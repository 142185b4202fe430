"""The same loaded models as in `tests/objectives`."""

from tests.objectives.conftest import dense, mixtral, tied

__all__ = ["dense", "mixtral", "tied"]
