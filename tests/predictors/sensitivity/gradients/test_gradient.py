from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Model, PackedTensors
from bitwright.objectives import Reference, Tokens
from bitwright.predictors import gradient_products, summed
from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from bitwright.predictors.sensitivity.gradients.sweep import Products
from bitwright.progress import Silent
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import Divergence, levels_of, random_tokens, space_of, uniform
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow


class TestGradientTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return gradient_table(gradient_products(subject))


def test_the_table_is_half_the_mean_square_for_each_token() -> None:
    values = np.array([[[1.0, 0.0]], [[3.0, 0.0]]])  # (2 sequences, 1 unit, 2 formats)
    assert gradient_table(Products(values, np.zeros((2, 1)), 5)).tolist() == [[(1 + 9) / 2 / 2 / 5, 0.0]]


def test_the_seed_decides_the_labels(tied: Model, tmp_path: Path) -> None:
    space, levels, tokens = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), random_tokens(3, 6)
    found = []
    for i, seed in enumerate((1, 1, 2)):
        with opened(tied, levels, space=space, tokens=tokens, store=tmp_path / f"{i}.sqlite", seed=seed) as subject:
            found.append(gradient_products(subject).values)
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.allclose(found[0], found[2])


def test_the_table_predicts_measured_divergences(tied: Model, tmp_path: Path) -> None:
    """Second order, so for small changes: within a factor of two for each unit, closer for their sum."""
    space, levels, tokens = space_of(tied, ("Q8_0", "Q5_1")), levels_of(tied, tmp_path), random_tokens(48, 12)
    with opened(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite") as subject:
        table = gradient_table(gradient_products(subject))
    objective = Divergence(tied, levels, space=space, reference=Reference(tied, tokens, scratch=tmp_path, progress=Silent()))
    form = int(uniform(space, "Q5_1")[0])
    some = np.arange(0, len(space.units), 2)
    measured = np.array([objective.of_one(u, form) for u in some])
    ratios = table[some, form] / measured
    assert measured.max() / measured.min() > 4  # units that are alike would be predicted by anything
    assert ratios.min() > 0.5
    assert ratios.max() < 2
    assert ratios.mean() == pytest.approx(1, abs=0.25)
    fine = uniform(space, "Q8_0")
    assert summed(table, fine) == pytest.approx(objective(fine).nats_per_token, rel=0.3)
