from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitwright.compress import Distortion, Model, PackedTensors, applied, measure_distortion
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.activations.similarity import (
    angular_scores,
    block_cosines,
    block_influence_scores,
    lim_scores,
    part_influences,
)
from bitwright.predictors.sensitivity.ranked_scores import scored_table
from bitwright.progress import Silent
from bitwright.spaces import Space, Tensor
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.arrays import written
from tests.predictors.subjects import opened

SCORES = [lim_scores, block_influence_scores, angular_scores]


class TestScoredTable(TableContract):
    """The three scores differ only in what is made of the same cosines."""

    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        distortion: Distortion = measure_distortion(space, levels, progress=Silent())
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return scored_table(block_influence_scores(block_cosines(subject), space), space, relative_error=distortion.plain)


def test_by_hand() -> None:
    space, _ = written([[np.ones((1, 8))]] * 3, layers=[-1, 0, 1])
    cosines = np.array([[[1.0, 0.5], [1.0, -0.5]], [[0.0, 1.0], [0.0, 1.0]]])  # (2 blocks, 2 sequences, 2 tokens)
    np.testing.assert_allclose(lim_scores(cosines, space), [-0.5, -0.5, -0.5])
    np.testing.assert_allclose(block_influence_scores(cosines, space), [0.5, 0.5, 0.5])
    np.testing.assert_allclose(angular_scores(cosines, space), [0.5, 0.5, 0], atol=1e-9)  # of the last token: 60° and 120°; 0°


@given(arrays(np.float64, (2, 3, 4), elements=st.floats(-1, 1)))
def test_scores_stay_in_range_and_two_of_them_agree(cosines: np.ndarray) -> None:
    space, _ = written([[np.ones((1, 8))]] * 3, layers=[-1, 0, 1])
    lim, influence, angular = (score(cosines, space) for score in SCORES)
    assert ((angular >= 0) & (angular <= 1)).all()
    assert ((influence >= 0) & (influence <= 2)).all()
    np.testing.assert_allclose(influence, 1 + lim)


def test_a_block_that_changes_nothing_has_no_influence(tied: Model, tmp_path: Path) -> None:
    def silent(tensor: Tensor) -> Any:
        return lambda: np.zeros(tensor.shape, dtype=np.float32)

    ends = {tensor.name: silent(tensor) for tensor in tied.tensors if tensor.name in ("blk.1.attn_output.weight", "blk.1.ffn_down.weight")}
    assert len(ends) == 2
    space = space_of(tied, ("Q4_0",))
    with opened(tied, levels_of(tied, tmp_path), space=space, tokens=random_tokens(9, 6), store=tmp_path / "a") as subject, applied(tied, ends):
        cosines = block_cosines(subject)
    within = np.array([unit.layer == 1 for unit in space.units])
    lim, influence, angular = (score(cosines, space) for score in SCORES)
    np.testing.assert_allclose(influence[within], 0, atol=1e-12)
    np.testing.assert_allclose(lim[within], -1)
    np.testing.assert_allclose(angular[within], 0, atol=1e-6)
    assert (influence[~within] > 0.01).all()


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_cosines_are_those_of_the_hidden_states(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Model = request.getfixturevalue(name)
    tokens = random_tokens(9, 6)
    with opened(model, levels_of(model, tmp_path), space=space_of(model, ("Q4_0",)), tokens=tokens, store=tmp_path / "a") as subject:
        cosines = block_cosines(subject)
    before, after, _ = model.module(torch.from_numpy(tokens.ids), output_hidden_states=True).hidden_states
    assert cosines.shape == (2, 9, 6)
    np.testing.assert_allclose(cosines[0], torch.cosine_similarity(before, after, dim=-1).numpy(), atol=1e-5)
    assert cosines[1].std() > 1e-4  # of the last block, before the final norm


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_influences_of_parts_are_those_of_the_residual_stream(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The hidden states before, between and behind the parts are taken from the norms of the module."""
    model: Model = request.getfixturevalue(name)
    tokens = random_tokens(9, 6)
    with opened(model, levels_of(model, tmp_path), space=space_of(model, ("Q4_0",)), tokens=tokens, store=tmp_path / "a") as subject:
        found = part_influences(subject)
    states = list[torch.Tensor]()
    norms = [norm for block in model.module.model.layers for norm in (block.input_layernorm, block.post_attention_layernorm)]
    handles = [norm.register_forward_pre_hook(lambda _, given: states.append(given[0])) for norm in [*norms, model.module.model.norm]]
    with torch.no_grad():
        model.module(torch.from_numpy(tokens.ids))
    for handle in handles:
        handle.remove()
    for i in range(2):
        before, between, behind = states[2 * i : 2 * i + 3]
        pairs = (before, between), (between, behind), (before, behind)
        np.testing.assert_allclose(found[i], [1 - torch.cosine_similarity(*pair, dim=-1).mean().item() for pair in pairs], atol=1e-5)
