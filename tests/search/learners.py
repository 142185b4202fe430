"""The least that can be handed to a strategy as a prediction."""

import numpy as np
from numpy.typing import NDArray

from bitwright.search import Learning, Predict, Refit
from bitwright.spaces import Choices, Space
from bitwright.testing.strategy_contract import Landscape


def knowing(known: Landscape, *, error: float = 0.3) -> Predict:
    """The landscape's table with its logarithms off by `error`, and its own opinion of how sure it is."""
    table = known.table * np.exp(np.random.default_rng(0).normal(0, error, known.table.shape))

    def predict(choices: Choices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        mean = Landscape(known.space, table)(choices)
        return mean, error * mean

    return predict


def ignorant(choices: Choices) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Predict the same of every choice."""
    return np.ones(len(choices)), np.ones(len(choices))


def ridge(space: Space) -> Refit:
    """A table of the offered pairs fitted by least squares, drawn to zero a little."""

    def ones(choices: Choices) -> NDArray[np.float64]:
        return (choices[:, :, None] == np.arange(len(space.formats)))[:, space.offered].astype(np.float64)

    def refit(choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        design = ones(choices)
        weights = np.linalg.solve(design.T @ design + 1e-3 * np.eye(design.shape[1]), design.T @ values)
        spread = float(np.std(values - design @ weights)) + 1e-6
        return lambda others: (ones(others) @ weights, np.full(len(others), spread))

    return refit


def learning(space: Space, prior: Predict = ignorant) -> Learning:
    """Ridge regression, refitted after every eight trials."""
    return Learning(prior, ridge(space), n_first=20, n_between=8)
