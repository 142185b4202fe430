"""What every way to price formats must pass. Inherit from `TableContract` and say how to make a table:

class TestMine(TableContract):
    def table(self, model, levels, *, space, tokens, folder):
        return my_table(model, levels, space, tokens)
"""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Levels, Model
from bitwright.objectives import Tokens
from bitwright.predictors import summed
from bitwright.spaces import Space
from tests.measuring import levels_of, random_tokens, space_of, uniform, weights_of

MENU = ("BF16", "Q8_0", "Q5_0", "Q4_0")
_ROUNDING = 1e-5  # nats per token that a measurement may be below zero


class TableContract(ABC):
    """The promises of a table of sensitivities."""

    @abstractmethod
    def table(self, model: Model, levels: Levels, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        """The table under test `(n_units, n_formats)`; `folder` is empty."""

    @pytest.fixture(params=["tied", "mixtral"])
    def model(self, request: pytest.FixtureRequest) -> Model:
        found: Model = request.getfixturevalue(request.param)
        return found

    def made(self, model: Model, folder: Path) -> tuple[Space, np.ndarray]:
        space = space_of(model, MENU)
        return space, self.table(model, levels_of(model, folder / "levels"), space=space, tokens=random_tokens(9, 8), folder=folder / "store")

    def test_prices_every_pair(self, model: Model, tmp_path: Path) -> None:
        before = weights_of(model)
        space, table = self.made(model, tmp_path)
        assert table.shape == space.offered.shape
        assert np.isfinite(table[space.offered]).all()
        assert (table[space.offered] >= -_ROUNDING).all()
        assert all(torch.equal(weight, before[name]) for name, weight in model.module.named_parameters())

    def test_what_is_stored_already_costs_nothing(self, model: Model, tmp_path: Path) -> None:
        space, table = self.made(model, tmp_path)
        assert abs(summed(table, uniform(space, "BF16"))) < len(space.units) * _ROUNDING

    def test_coarser_costs_more(self, model: Model, tmp_path: Path) -> None:
        space, table = self.made(model, tmp_path)
        sums = [summed(table, uniform(space, form)) for form in MENU]
        assert sums == sorted(sums)
        assert sums[-1] > 3 * sums[1] > 0

    def test_is_the_same_again(self, tied: Model, tmp_path: Path) -> None:
        _, first = self.made(tied, tmp_path / "a")
        _, again = self.made(tied, tmp_path / "b")
        np.testing.assert_array_equal(first, again)
