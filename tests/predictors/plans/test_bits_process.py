"""The process on bits: the contract, its formulas, and what it does not know."""

import numpy as np

from bitwright.engines import LLAMA_CPP
from bitwright.predictors.plans.bits_process import BitsProcessPredictor
from bitwright.predictors.plans.predictor import Predictor
from bitwright.spaces import Space, Tensor, discover
from bitwright.testing.predictor_contract import PredictorContract
from bitwright.testing.random_plans import additive


def space_for(n_units: int, n_formats: int) -> Space:
    names = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")[:n_formats]
    units = discover(tuple(Tensor(f"blk.{unit}.attn_q.weight", (256, 256), "F16") for unit in range(n_units)))
    return LLAMA_CPP.space(units, menu=names, fixed_bytes=0, n_weights=1)


class TestBitsProcessPredictor(PredictorContract):
    needed = 4
    exactness = 0.5

    def predictor(self, table: np.ndarray) -> Predictor:
        return _Renumbered(table.shape)


class _Renumbered(Predictor):
    """Formats 0, 1, 2, ... of a table as those of a space."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._space = space_for(*shape)
        offered = np.flatnonzero(self._space.offered[0])
        self._format = offered[np.argsort([self._space.formats[f].bits_per_weight for f in offered])]

    def fit(self, choices, values, errors):
        inner = BitsProcessPredictor(self._space).fit(self._format[choices], values, errors)
        return lambda others: inner(self._format[others])


def test_far_from_what_is_measured_it_knows_the_mean_and_no_more() -> None:
    plans = additive(12, noise=0.0)
    predict = _Renumbered(plans.table.shape).fit(plans.choices, plans.values, plans.values)
    at, _ = predict(plans.choices)
    assert np.corrcoef(at, plans.values)[0, 1] > 0.9
    _, near = predict(plans.choices)
    _, far = predict(np.abs(plans.choices.max() - plans.choices))
    assert far.mean() > near.mean()


def test_no_table_has_a_part_in_it() -> None:
    plans = additive(30, noise=0.05)
    one, other = (_Renumbered(table.shape).fit(*plans.known())(plans.choices) for table in (plans.table, 1 / plans.table))
    np.testing.assert_array_equal(one, other)
