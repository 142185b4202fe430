from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitwright.compress import Model, load
from bitwright.objectives import decoder_blocks
from bitwright.predictors import Call, hook_blocks
from bitwright.predictors.sensitivity.block_hooks import BOUND_BYTES, forward, portions, run_subject
from tests.compress.tiny_models import FAMILIES
from tests.measuring import levels_of, random_tokens, space_of
from tests.model_fixtures import saved
from tests.predictors.subjects import opened


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_blocks_are_the_module_s_own(name: str, request: pytest.FixtureRequest) -> None:
    model: Model = request.getfixturevalue(name)
    assert decoder_blocks(model) == [*model.module.model.layers]


def test_the_output_of_a_block_is_the_input_of_the_next(tied: Model, tmp_path: Path) -> None:
    calls: list[Call] = []
    with opened(tied, levels_of(tied, tmp_path), space=space_of(tied, ("Q4_0",)), tokens=random_tokens(10, 6), store=tmp_path / "a") as subject:
        with hook_blocks(tied, calls.append):
            run_subject(subject, "")
        run_subject(subject, "")  # the hook is gone
    assert [(call.index, len(call.x)) for call in calls] == [(0, 8), (1, 8), (0, 2), (1, 2)]
    states = [tied.module(torch.from_numpy(ids), output_hidden_states=True).hidden_states for ids in subject.tokens.batches(8)]
    for call in calls:
        torch.testing.assert_close(call.x, states[int(len(call.x) == 2)][call.index])
        if call.index == 0:
            torch.testing.assert_close(call.y, states[int(len(call.x) == 2)][1])
        torch.testing.assert_close(decoder_blocks(tied)[call.index](call.x.clone(), **call.given), call.y)


@pytest.mark.parametrize("family", ["gemma3", "qwen3-moe"])
def test_blocks_of_other_architectures_can_be_run_alone(family: str, tmp_path: Path) -> None:
    """The other arguments of a block differ between architectures, and between blocks if some have sliding-window attention."""
    model_type, settings, _ = FAMILIES[family]
    model, calls = load(str(saved(tmp_path / family, model_type, settings))), list[Call]()
    with hook_blocks(model, calls.append), torch.inference_mode():
        model.module(torch.from_numpy(random_tokens(2, 12).ids), use_cache=False)
        for block, call in zip(decoder_blocks(model), calls.copy(), strict=True):
            assert torch.equal(block(call.x, **call.given), call.y)


def test_the_hook_goes_after_a_mistake_too(tied: Model) -> None:
    calls: list[Call] = []
    with pytest.raises(KeyboardInterrupt), hook_blocks(tied, calls.append):
        raise KeyboardInterrupt
    tied.module(torch.ones((1, 2), dtype=torch.int64))
    assert not calls


def test_forward_gives_every_batch_with_its_logits(tied: Model, tmp_path: Path) -> None:
    tokens = random_tokens(9, 6)
    with opened(tied, levels_of(tied, tmp_path), space=space_of(tied, ("Q4_0",)), tokens=tokens, store=tmp_path / "a") as subject:
        found = [*forward(subject, "")]
    np.testing.assert_array_equal(np.concatenate([ids for ids, _ in found]), tokens.ids)
    torch.testing.assert_close(torch.cat([logits for _, logits in found]), tied.module(torch.from_numpy(tokens.ids)).logits)


@given(st.lists(st.integers(0, 2 * BOUND_BYTES), max_size=20))
def test_portions_are_consecutive_and_fit(sizes: list[int]) -> None:
    found = [*portions(sizes)]
    assert [i for portion in found for i in portion] == [*range(len(sizes))]
    for portion, following in pairwise([*found, []]):
        assert len(portion) == 1 or sum(sizes[i] for i in portion) <= BOUND_BYTES
        assert not following or sum(sizes[i] for i in [*portion, following[0]]) > BOUND_BYTES
