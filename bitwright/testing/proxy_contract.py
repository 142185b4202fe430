"""Contract tests of sensitivity proxies. Inherit from `ProxyContract` and name the proxy under test:

class TestMine(ProxyContract):
    proxy = MINE
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bitwright.compress import Model, PackedTensors, measure_distortion
from bitwright.objectives import Store, Tokens
from bitwright.predictors import Proxy, Subject, summed
from bitwright.progress import Silent
from bitwright.spaces import Space
from bitwright.testing.measuring import levels_of, random_tokens, space_of, uniform, weights_of
from bitwright.testing.tiny_models import mixtral, tied_llama

MENU = ("BF16", "Q8_0", "Q4_0")
_ROUNDING = 1e-5  # nats per token that a measurement may be below zero


@dataclass(frozen=True, eq=False)
class Made:
    """Table with its subject, and whether the model is unchanged after it."""

    model: Model
    space: Space
    table: np.ndarray
    is_unchanged: bool


class TableContract(ABC):
    """Contract of a sensitivity table."""

    @abstractmethod
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        """Return the table under test `(n_units, n_formats)`; `folder` is empty."""

    def make(self, model: Model, folder: Path) -> Made:
        """Compute the table on a model, and compare the model before and after."""
        before, space = weights_of(model), space_of(model, MENU)
        table = self.table(model, levels_of(model, folder / "levels"), space=space, tokens=random_tokens(5, 8), folder=folder / "store")
        return Made(model, space, table, all(torch.equal(weight, before[name]) for name, weight in model.module.named_parameters()))

    @pytest.fixture(scope="class", params=[tied_llama, mixtral], ids=["dense", "mixture"])
    @classmethod
    def made(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
        """Return the table of the class for each of the tiny models."""
        return cls().make(request.param(), tmp_path_factory.mktemp("table"))

    def test_prices_every_pair(self, made: Made) -> None:
        """Require finite prices, not negative, for all offered pairs."""
        assert made.table.shape == made.space.offered.shape
        assert np.isfinite(made.table[made.space.offered]).all()
        assert (made.table[made.space.offered] >= -_ROUNDING).all()

    def test_what_is_stored_already_costs_nothing(self, made: Made) -> None:
        """Require a sum of about 0 for the formats that the tensors are stored in."""
        assert abs(summed(made.table, uniform(made.space, "BF16"))) < len(made.space.units) * _ROUNDING

    def test_coarser_costs_more(self, made: Made) -> None:
        """Require the sums of uniform choices to rise as formats become coarser."""
        sums = [summed(made.table, uniform(made.space, form)) for form in MENU]
        assert sums == sorted(sums)
        assert sums[-1] > 3 * sums[1] > 0

    def test_the_model_is_left_as_it_was(self, made: Made) -> None:
        """Require the weights to be left unchanged."""
        assert made.is_unchanged

    def test_is_the_same_again(self, made: Made, tmp_path: Path) -> None:
        """Require the same table in another folder."""
        np.testing.assert_array_equal(self.make(made.model, tmp_path).table, made.table)


class SignedTableContract(TableContract):
    """Contract of a sensitivity table whose prices may be negative, since errors compensate each other."""

    def test_prices_every_pair(self, made: Made) -> None:
        """Require finite prices of either sign for all offered pairs."""
        assert made.table.shape == made.space.offered.shape
        assert np.isfinite(made.table[made.space.offered]).all()


class ProxyContract(TableContract):
    """Contract of a sensitivity proxy as it is declared: its table, its cost, and its scores where it has some."""

    proxy: Proxy

    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> NDArray[np.float64]:
        """Return the proxy's table `(n_units, n_formats)`."""
        store = Store(folder)
        try:
            subject = Subject(model, levels, space, tokens, 0, store, Silent())
            if self.proxy.score is not None:
                assert self.proxy.score(subject).shape == (len(space.units),)
            return self.proxy.price(subject, measure_distortion(space, levels, progress=Silent()))
        finally:
            store.close()

    def test_says_what_it_is_and_what_it_takes(self, made: Made) -> None:
        """Require a name, a source and the passes over the text."""
        passes = self.proxy.passes(made.space)
        assert self.proxy.name
        assert self.proxy.source
        assert passes.forward >= 0
        assert passes.backward >= 0
