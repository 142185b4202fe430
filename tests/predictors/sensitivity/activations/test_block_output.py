from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.compress import Model, PackedTensors, load
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.activations import block_output
from bitwright.predictors.sensitivity.activations.block_output import block_output_errors
from bitwright.predictors.sensitivity.activations.layer_output import layer_output_errors
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.compress.tiny_models import FAMILIES
from tests.measuring import changed, levels_of, random_tokens, space_of
from tests.model_fixtures import saved
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow


class TestAbsoluteTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return block_output_errors(subject).absolute()


class TestRelativeTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return block_output_errors(subject).relative()


def outputs(module: torch.nn.Module, layer: int, ids: torch.Tensor) -> torch.Tensor:
    """Output of the block in a forward pass of the whole model."""
    found: list[torch.Tensor] = []
    handle = module.model.layers[layer].register_forward_hook(lambda *given: found.append(given[2]))
    with torch.inference_mode():
        module(ids)
    handle.remove()
    return found[0].double()


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_errors_are_those_of_the_block_in_the_whole_model(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Changing one unit leaves earlier blocks unchanged, so the whole model gives the same error as the block run alone."""
    model: Model = request.getfixturevalue(name)
    space, levels, tokens = space_of(model, ("BF16", "Q4_0")), levels_of(model, tmp_path), random_tokens(10, 6)  # batches of 8 and of 2
    ids = torch.from_numpy(tokens.ids)
    with opened(model, levels, space=space, tokens=tokens, store=tmp_path / "a") as subject:
        errors = block_output_errors(subject)
        outside = layer_output_errors(subject)
    stored, coarse = (next(f for f, form in enumerate(space.formats) if form.name == wanted) for wanted in ("BF16", "Q4_0"))
    for u, unit in enumerate(space.units):
        if unit.layer < 0:
            np.testing.assert_allclose(errors.changed[u], outside.changed[u])
            np.testing.assert_allclose(errors.original[u], outside.original[u])
            continue
        choice = np.full(len(space.units), stored)
        original = outputs(changed(model, levels, space, choice), unit.layer, ids)
        choice[u] = coarse
        difference = outputs(changed(model, levels, space, choice), unit.layer, ids) - original
        np.testing.assert_allclose(errors.changed[u, coarse], [float((difference**2).sum()) / tokens.n_tokens, 0], rtol=2e-3)
        np.testing.assert_allclose(errors.original[u], [float((original**2).sum()) / tokens.n_tokens, 0], rtol=1e-4)
        assert errors.changed[u, stored].tolist() == [0, 0]
    assert np.isnan(errors.changed[~space.offered]).all()


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("a pair was measured again")


def test_a_finished_block_is_not_run_again(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, levels, of_block = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), block_output._of_block

    def interrupted(subject: Any, step: Any, units: Any) -> np.ndarray:
        if step.index == 1:
            raise KeyboardInterrupt
        return of_block(subject, step, units)

    with opened(tied, levels, space=space, tokens=random_tokens(9, 6), store=tmp_path / "a") as subject:
        monkeypatch.setattr(block_output, "_of_block", interrupted)
        with pytest.raises(KeyboardInterrupt):
            block_output_errors(subject)
        monkeypatch.setattr(block_output, "_of_block", lambda s, step, units: refuse() if step.index == 0 else of_block(s, step, units))
        resumed = block_output_errors(subject)
        monkeypatch.setattr(block_output, "_of_block", refuse)
        np.testing.assert_array_equal(block_output_errors(subject).changed, resumed.changed)
    monkeypatch.setattr(block_output, "_of_block", of_block)
    with opened(tied, levels, space=space, tokens=random_tokens(9, 6), store=tmp_path / "b") as subject:
        np.testing.assert_array_equal(block_output_errors(subject).changed, resumed.changed)


def test_blocks_are_run_alone_as_in_the_whole_model(tmp_path: Path) -> None:
    """Blocks agree although one attends to a window and the next to all, and although the last batch is smaller."""
    model_type, settings, _ = FAMILIES["gemma3"]
    model = load(str(saved(tmp_path / "gemma3", model_type, settings)))
    tokens = random_tokens(10, 12)
    with opened(model, levels_of(model, tmp_path), space=space_of(model, ("Q4_0",)), tokens=tokens, store=tmp_path / "a") as subject:
        for step in block_output._steps(subject):
            expected = outputs(model.module, step.index, torch.from_numpy(tokens.ids))
            torch.testing.assert_close(torch.cat(step.outputs).double(), expected, rtol=1e-4, atol=1e-4)
