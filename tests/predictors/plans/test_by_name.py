import numpy as np
import pytest

from bitwright.engines.no_engine import INTEGERS
from bitwright.errors import UserError
from bitwright.predictors import predictor_named
from bitwright.predictors.plans.by_name import PREDICTORS
from bitwright.spaces import Space, Tensor, Unit
from tests.sentences import sentence


@pytest.fixture
def space() -> Space:
    units = tuple(Unit(f"unit{i}", i, "linear", (Tensor(f"unit{i}", (32, 32), "F32"),)) for i in range(3))
    return INTEGERS.space(units, menu=("INT2_G32", "INT4_G32"), fixed_bytes=0, n_weights=3 * 32 * 32)


@pytest.mark.parametrize("name", [name for name in PREDICTORS if name != "mlp"])  # which trains for too long here
def test_each_predicts_choices_of_the_space(name: str, space: Space) -> None:
    table = np.where(space.offered, np.linspace(0.1, 1, len(space.formats)), np.nan)
    offered = np.flatnonzero(space.offered[0])
    choices = offered[np.array(np.meshgrid(*3 * [[0, 1]])).reshape(3, -1).T]  # all eight
    values = table[np.arange(3), choices].sum(axis=1)
    means, _ = predictor_named(name, space, table, seed=0).fit(choices, values, 0.01 * values)(choices)
    np.testing.assert_allclose(means, values, rtol=0.05)


def test_every_call_makes_a_new_one(space: Space) -> None:
    table = np.ones(space.offered.shape)
    for name in PREDICTORS:
        assert predictor_named(name, space, table, seed=0) is not predictor_named(name, space, table, seed=0)


def test_a_name_that_is_close_is_offered(space: Space) -> None:
    with pytest.raises(UserError) as refused:
        predictor_named("rigde", space, np.ones(space.offered.shape), seed=0)
    sentence(refused.value, "rigde", "did you mean ridge?")


def test_all_names_are_offered(space: Space) -> None:
    with pytest.raises(UserError) as refused:
        predictor_named("oracle", space, np.ones(space.offered.shape), seed=0)
    sentence(refused.value, "oracle", *PREDICTORS)
