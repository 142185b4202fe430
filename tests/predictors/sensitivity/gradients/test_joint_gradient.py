from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitwright.compress import Model, PackedTensors
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.gradients.joint_gradient import geometric_mean, joint_table
from bitwright.predictors.sensitivity.gradients.losses import SampledLabels
from bitwright.predictors.sensitivity.gradients.products import InnerProduct, SquaredOutputChange
from bitwright.predictors.sensitivity.gradients.sweep import Sweep, measure_products, measure_together
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow

tables = arrays(np.float64, (3, 4), elements=st.floats(1e-6, 1e6))


class TestJoint(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return joint_table(subject, np.ones(space.offered.shape))


@given(tables, tables, st.floats(1e-3, 1e3))
def test_the_units_of_the_other_do_not_matter(table: np.ndarray, other: np.ndarray, factor: float) -> None:
    joined = geometric_mean(table, other)
    np.testing.assert_allclose(joined, geometric_mean(table, factor * other))
    np.testing.assert_allclose(np.log(joined).mean(), np.log(table).mean(), atol=1e-9)  # on the scale of the table
    np.testing.assert_allclose(geometric_mean(table, table), table)


def test_by_hand() -> None:
    table, other = np.array([[4.0, 1.0, 0.0, 7.0]]), np.array([[1.0, 4.0, 5.0, 0.0]])
    np.testing.assert_allclose(geometric_mean(table, other), [[2.0, 2.0, 0.0, 7.0]])
    np.testing.assert_array_equal(geometric_mean(table, np.zeros((1, 4))), table)


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_products_of_one_sweep_are_those_of_two(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Model = request.getfixturevalue(name)
    space, levels, tokens = space_of(model, ("Q8_0", "Q4_0")), levels_of(model, tmp_path / "levels"), random_tokens(3, 6)
    kinds = (InnerProduct(), SquaredOutputChange())
    with opened(model, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite") as subject:
        together = measure_together(subject, Sweep(SampledLabels()), kinds)
    with opened(model, levels, space=space, tokens=tokens, store=tmp_path / "b.sqlite") as subject:
        apart = [measure_products(subject, Sweep(SampledLabels(), kind)) for kind in kinds]
    for one, other in zip(together, apart, strict=True):
        assert one.values.any()
        np.testing.assert_array_equal(one.values, other.values)
