from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Model, PackedTensors
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.measured.one_at_a_time import measured_table, measured_table_at
from bitwright.predictors.sensitivity.text_divergence import open_divergence
from bitwright.progress import Silent
from bitwright.spaces import Choice, Space
from bitwright.testing.proxy_contract import SignedTableContract, TableContract
from tests.measuring import space_of, uniform
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow


class TestMeasuredTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject, open_divergence(subject) as divergence:
            return measured_table(space, divergence.of_one, progress=Silent())


class TestMeasuredTableAtTheFinest(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject, open_divergence(subject) as divergence:
            return measured_table_at(space, uniform(space, "BF16"), divergence.of_choice, progress=Silent())


class TestMeasuredTableAtTheSmallest(SignedTableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject, open_divergence(subject) as divergence:
            return measured_table_at(space, space.smallest(), divergence.of_choice, progress=Silent())


def test_each_offered_pair_is_measured_once(tied: Model) -> None:
    space, asked = space_of(tied, ("Q8_0", "Q4_0")), []

    def of_one(unit: int, form: int) -> float:
        asked.append((unit, form))
        return unit + form / 100

    table = measured_table(space, of_one, progress=Silent())
    assert asked == [tuple(pair) for pair in np.argwhere(space.offered).tolist()]
    assert np.isnan(table[~space.offered]).all()
    assert all(table[u, f] == u + f / 100 for u, f in asked)


def test_an_operating_point_is_changed_in_one_unit_at_a_time(tied: Model) -> None:
    """The table has the differences at the operating point, of a value with interactions between units."""
    space, asked = space_of(tied, ("Q8_0", "Q5_1", "Q4_0")), []
    fine, middle, coarse = (uniform(space, form) for form in ("Q8_0", "Q5_1", "Q4_0"))
    at = np.where(np.arange(len(fine)) % 2, middle, coarse)

    def value(choice: Choice) -> float:
        asked.append(int((choice != at).sum()))
        return float((choice.astype(float) ** 2).sum() + choice.astype(float).prod() ** 0.1)

    table = measured_table_at(space, at, value, progress=Silent())
    n_pairs = int(space.offered.sum())
    assert asked == [0] + [1] * (n_pairs - len(fine))
    assert np.isnan(table[~space.offered]).all()
    assert not table[np.arange(len(fine)), fine].any()
    u = 3
    changed = [at.copy(), at.copy()]
    changed[0][u], changed[1][u] = coarse[u], fine[u]
    np.testing.assert_allclose(table[u, coarse[u]], value(changed[0]) - value(changed[1]))
