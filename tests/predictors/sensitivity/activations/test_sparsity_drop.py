from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.compress import Levels, Model, measure_distortion
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.activations import sparsity_drop
from bitwright.predictors.sensitivity.activations.sparsity_drop import sparsity_scores, without_smallest
from bitwright.predictors.sensitivity.ranked_scores import scored_table
from bitwright.progress import Silent
from bitwright.spaces import Space, Tensor
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import changed, levels_of, random_tokens, space_of
from tests.predictors.subjects import opened


class TestScoredTable(TableContract):
    def table(self, model: Model, levels: Levels, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        distortion = measure_distortion(space, levels, progress=Silent())
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return scored_table(sparsity_scores(subject), space, relative_error=distortion.plain)


def test_the_smallest_go_by_hand() -> None:
    weights = np.array([[3.0, -1.0, 0.5], [-2.0, 1.0, 4.0]], dtype=np.float32)
    assert without_smallest(weights, 0.5).tolist() == [[3, 0, 0], [-2, 0, 4]]
    assert without_smallest(weights, 0.4).tolist() == [[3, 0, 0], [-2, 1, 4]]  # the first of equal ones
    assert without_smallest(weights, 0.1).tolist() == weights.tolist()
    assert weights[0, 1] == -1


class Pruned:
    """Stand-in for the packed tensors: every tensor of one layer without its smallest weights, all others unchanged."""

    def __init__(self, model: Model, space: Space, layer: int) -> None:
        self._read, self._pruned = model.source.read, {tensor for unit in space.units if unit.layer == layer for tensor in unit.tensors}

    def weights(self, tensor: Tensor, _: object) -> np.ndarray:
        return without_smallest(self._read(tensor), 0.7) if tensor in self._pruned else self._read(tensor)


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_scores_are_rises_of_the_loss(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Model = request.getfixturevalue(name)
    space, tokens = space_of(model, ("Q4_0",)), random_tokens(9, 6)
    ids = torch.from_numpy(tokens.ids)
    with opened(model, levels_of(model, tmp_path), space=space, tokens=tokens, store=tmp_path / "a") as subject:
        found = sparsity_scores(subject, share=0.7)
    original = float(model.module(ids, labels=ids).loss)
    for layer in (0, 1):
        other = changed(model, Pruned(model, space, layer), space, space.smallest())
        rise = float(other(ids, labels=ids).loss) - original
        np.testing.assert_allclose(found[[unit.layer == layer for unit in space.units]], rise, atol=1e-5)
        assert abs(rise) > 1e-3
    outside = [u for u, unit in enumerate(space.units) if unit.layer < 0]
    assert len({*found}) == 2 + len(outside)  # each of these is a layer of its own


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("a forward pass was run again")


def test_a_layer_is_pruned_once(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tied, levels_of(tied, tmp_path), space=space_of(tied, ("Q4_0",)), tokens=random_tokens(2, 6), store=tmp_path / "a") as subject:
        first = sparsity_scores(subject)
        monkeypatch.setattr(sparsity_drop, "forward", refuse)
        np.testing.assert_array_equal(sparsity_scores(subject), first)
        with pytest.raises(AssertionError, match="again"):
            sparsity_scores(subject, share=0.4)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 50.0])
def test_shares_that_are_none_are_a_mistake(tied: Model, tmp_path: Path, share: float) -> None:
    with (
        opened(tied, levels_of(tied, tmp_path), space=space_of(tied, ("Q4_0",)), tokens=random_tokens(2, 6), store=tmp_path / "a") as subject,
        pytest.raises(ValueError, match="between 0 and 1"),
    ):
        sparsity_scores(subject, share=share)
