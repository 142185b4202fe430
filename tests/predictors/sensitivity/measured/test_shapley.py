from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.compress import Model, PackedTensors, measure_distortion
from bitwright.objectives import Tokens
from bitwright.predictors import random_orders, shapley_marginals
from bitwright.predictors.sensitivity.measured.shapley import Shapley, shapley_table
from bitwright.predictors.sensitivity.text_divergence import open_divergence
from bitwright.progress import Silent
from bitwright.spaces import Choice, Space
from bitwright.testing.proxy_contract import SignedTableContract
from tests.measuring import uniform
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow


class TestShapleyTable(SignedTableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        error, high, low = measure_distortion(space, levels, progress=Silent()).plain, uniform(space, "BF16"), space.smallest()
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject, open_divergence(subject) as divergence:
            orders = random_orders(len(low), 2, rng=np.random.default_rng(subject.seed))
            found = shapley_marginals(divergence.of_choice, high=high, low=low, orders=orders, progress=Silent())
        return shapley_table(found.mean(), low, relative_error=error)


def game(n_units: int, seed: int, *, interaction: float) -> tuple[np.ndarray, np.ndarray]:
    """Losses of single units and of pairs, for a quadratic game."""
    rng = np.random.default_rng(seed)
    return rng.normal(1, 1, n_units), interaction * np.triu(rng.normal(size=(n_units, n_units)), 1)


def played(alone: np.ndarray, pairs: np.ndarray, *, n: int, seed: int = 0) -> Shapley:
    def value(choice: Choice) -> float:
        return float(5 + alone @ choice + choice @ pairs @ choice)

    zeros = np.zeros(len(alone), dtype=np.int64)
    orders = random_orders(len(alone), n, rng=np.random.default_rng(seed))
    return shapley_marginals(value, high=zeros, low=zeros + 1, orders=orders, progress=Silent())


@given(st.integers(1, 9), st.integers(0, 10**6), st.floats(0, 3))
def test_marginals_add_up_to_the_whole_loss_in_every_order(n_units: int, seed: int, interaction: float) -> None:
    alone, pairs = game(n_units, seed, interaction=interaction)
    found = played(alone, pairs, n=3, seed=seed)
    np.testing.assert_allclose(found.marginals.sum(axis=1), alone.sum() + pairs.sum(), rtol=1e-9, atol=1e-9)


@given(st.integers(2, 9), st.integers(0, 10**6))
def test_an_additive_game_is_found_exactly(n_units: int, seed: int) -> None:
    alone, pairs = game(n_units, seed, interaction=0)
    found = played(alone, pairs, n=2, seed=seed)
    np.testing.assert_allclose(found.mean(), alone, atol=1e-9)
    np.testing.assert_allclose(found.covariance(), 0, atol=1e-12)
    a, k = found.interactions()
    np.testing.assert_allclose(a, alone, atol=1e-9)
    assert k.shape == (n_units, n_units)


def test_the_mean_is_the_shapley_value() -> None:
    """A pair's interaction is shared between its two units; two units that act only together vary together."""
    alone, pairs = game(6, 1, interaction=1.0)
    found = played(alone, pairs, n=4000)
    np.testing.assert_allclose(found.mean(), alone + (pairs + pairs.T).sum(axis=1) / 2, atol=0.1)
    together = played(np.zeros(2), np.array([[0.0, 1.0], [0.0, 0.0]]), n=400).covariance()
    np.testing.assert_allclose(together, [[0.25, -0.25], [-0.25, 0.25]], atol=0.03)


def test_interactions_are_coopq_s() -> None:
    made = Shapley(np.array([[1.0, 4.0], [3.0, 2.0], [2.0, 6.0]]))
    covariance = np.cov(made.marginals, rowvar=False)
    a, k = made.interactions(alpha=0.25)
    np.testing.assert_allclose(k, [[covariance[0, 0], 0.75 * covariance[0, 1]], [0.75 * covariance[1, 0], covariance[1, 1]]])
    np.testing.assert_allclose(a, [2 - k[0, 1], 4 - k[1, 0]])
    with pytest.raises(ValueError, match="two permutations"):
        Shapley(np.ones((1, 2))).covariance()


def test_evaluations_are_counted_and_choices_are_between_the_two_ends() -> None:
    high, low, asked = np.array([5, 0, 3, 1]), np.array([2, 1, 3, 4]), []

    def value(choice: Choice) -> float:
        assert all(c in (h, w) for c, h, w in zip(choice, high, low, strict=True))
        asked.append(tuple(choice))
        return float(len(asked))

    shapley_marginals(value, high=high, low=low, orders=random_orders(4, 3, rng=np.random.default_rng(0)), progress=Silent())
    assert len(asked) == 2 + 3 * 3
    assert high.tolist() == [5, 0, 3, 1]


def test_other_formats_cost_in_proportion_to_their_error() -> None:
    errors = np.array([[0.1, 0.4, np.nan], [0.0, 0.0, 0.3]])
    np.testing.assert_allclose(shapley_table(np.array([2.0, 3.0]), np.array([1, 1]), relative_error=errors), [[0.5, 2.0, np.nan], [0.0, 0.0, 0.0]])
