from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Model, PackedTensors
from bitwright.objectives import Reference, Tokens
from bitwright.predictors import summed
from bitwright.predictors.sensitivity.gradients.first_order import alignment_table, delta_loss_table, first_order_table
from bitwright.predictors.sensitivity.gradients.losses import TextLabels
from bitwright.predictors.sensitivity.gradients.sweep import Sweep, measure_products
from bitwright.progress import Silent
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import SignedTableContract, TableContract
from tests.measuring import Divergence, levels_of, random_tokens, space_of, uniform
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow


class TestFirstOrder(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return first_order_table(subject)


class TestDeltaLoss(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return delta_loss_table(subject)


class TestAlignment(SignedTableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return alignment_table(subject)


def test_first_order_is_of_the_mean_gradient(tied: Model, tmp_path: Path) -> None:
    """The absolute value is of the whole text's gradient, not of each sequence's."""
    space, levels, tokens = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), random_tokens(5, 6)
    with opened(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite") as subject:
        table, products = first_order_table(subject), measure_products(subject, Sweep(TextLabels()))
    np.testing.assert_allclose(table, np.abs(products.values.mean(axis=0)) / 6)
    assert (table[space.offered] < np.abs(products.values).mean(axis=0)[space.offered] / 6).any()


def test_delta_loss_bounds_first_order_at_the_same_point(tied: Model, tmp_path: Path) -> None:
    """|⟨g, ΔW⟩| ≤ Σ|g ⊙ ΔW| at the same weights, and a unit that cannot have a format has no price in it."""
    space, levels, tokens = space_of(tied, ("Q8_0", "Q4_0")), levels_of(tied, tmp_path), random_tokens(5, 6)
    fewer = space.offered.copy()
    fewer[3, uniform(space, "Q4_0")[3]] = False
    space = space.narrowed(fewer)
    with opened(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite") as subject:
        table = delta_loss_table(subject)
    assert (np.isnan(table) == ~space.offered).all()
    form = int(uniform(space, "Q8_0")[0])
    at = {tensor.name: space.formats[form] for unit in space.units for tensor in unit.tensors}
    with opened(tied, levels, space=space, tokens=tokens, store=tmp_path / "b.sqlite") as subject:
        inner = measure_products(subject, Sweep(TextLabels(), at=at)).restored_per_token()
    assert (table[:, form] >= np.abs(inner) - 1e-9).all()


def test_alignment_is_the_slope_of_the_divergence(tied: Model, tmp_path: Path) -> None:
    """Close to the operating point, the difference of two prices is the difference of two divergences."""
    space, levels, tokens = space_of(tied, ("Q8_0", "Q5_1")), levels_of(tied, tmp_path), random_tokens(16, 8)
    low, high = uniform(space, "Q5_1"), uniform(space, "Q8_0")
    with opened(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite") as subject:
        table = alignment_table(subject)
    objective = Divergence(tied, levels, space=space, reference=Reference(tied, tokens, scratch=tmp_path, progress=Silent()))
    start, predicted, measured = objective(low).nats_per_token, [], []
    for u in range(len(low)):
        changed = low.copy()
        changed[u] = high[u]
        predicted.append(table[u, low[u]] - table[u, high[u]])
        measured.append(start - objective(changed).nats_per_token)
    assert np.corrcoef(predicted, measured)[0, 1] > 0.95
    assert summed(table, low) > summed(table, high)
