"""Refitted matrices against their definition: the least squares problem of each, in the whole model with all of them in place."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor as Torch

from bitwright.compress import Floats, Model, Weights, applied, load, narrowed_weights
from bitwright.pipeline.finishing.compensation import Rounding, compensated, least_squares, refits
from bitwright.progress import Silent
from bitwright.spaces import Structure
from tests.measuring import random_tokens
from tests.model_fixtures import saved

TOKENS = random_tokens(10, 24)  # batches of 8 and of 2
RIDGE = 3.0
_SHAPE = {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
_KEPT = Structure((1, 0, 0, 2), (96, 64, 0, 96))  # a head, an attention with channels and a block behind it are gone
_REFITTED = {"blk.0.attn_output.weight": 32, "blk.0.ffn_down.weight": 96, "blk.1.ffn_down.weight": 64}


@pytest.fixture(scope="module")
def model(model_folders: Path) -> Model:
    folder = model_folders / "compensated-llama"
    return load(str(folder if folder.exists() else saved(folder, "llama", _SHAPE)))


def seen(model: Model, weights: Weights) -> dict[str, Torch]:
    """Return the inputs of output and down projections, and the hidden states behind each attention and each block, in one pass of the model."""
    found: dict[str, Torch] = {}
    handles = []
    for i, block in enumerate(model.module.model.layers):
        for name, layer in ((f"blk.{i}.attn_output.weight", block.self_attn.o_proj), (f"blk.{i}.ffn_down.weight", block.mlp.down_proj)):
            handles.append(layer.register_forward_pre_hook(lambda _, given, name=name: found.__setitem__(name, given[0].flatten(0, -2))))
        norm, key = block.post_attention_layernorm, f"behind attention {i}"
        handles.append(norm.register_forward_pre_hook(lambda _, given, key=key: found.__setitem__(key, given[0].flatten(0, -2))))
        handles.append(block.register_forward_hook(lambda _, __, out, i=i: found.__setitem__(f"behind block {i}", out.flatten(0, -2))))
    with applied(model, weights), torch.no_grad():
        model.module(torch.from_numpy(TOKENS.ids), use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def in_place(made: Mapping[str, Floats]) -> Weights:
    return {name: lambda name=name: made[name] for name in made}  # type: ignore[misc]


def test_the_matrices_behind_what_is_gone_are_refitted(model: Model) -> None:
    found = {refit.tensor.name: refit.n_columns for of_block in refits(model, _KEPT).values() for refit in of_block}
    assert found == _REFITTED


def test_every_refitted_matrix_is_the_minimum_of_its_loss_in_the_whole_model(model: Model) -> None:
    """Hold Σ r hᵀ to λ ΔW, with the residuals r that are left; the state that block 1 is to reach is that behind block 2, which is gone."""
    rounded: dict[str, Rounding] = dict.fromkeys(_REFITTED, lambda matrix: matrix)
    made = compensated(model, narrowed_weights(model, {}, _KEPT), _KEPT, TOKENS, rounded=rounded, progress=Silent(), ridge=RIDGE)
    assert set(made) == set(_REFITTED)
    whole, narrow = seen(model, {}), seen(model, narrowed_weights(model, in_place(made), _KEPT))
    cut = seen(model, narrowed_weights(model, {}, _KEPT))
    tensors = {tensor.name: tensor for tensor in model.tensors}
    places = {
        "blk.0.attn_output.weight": ("behind attention 0", "behind attention 0"),
        "blk.0.ffn_down.weight": ("behind block 0", "behind block 0"),
        "blk.1.ffn_down.weight": ("behind block 2", "behind block 1"),
    }
    for name, (wanted, reached) in places.items():
        kept = _REFITTED[name]
        h = narrow[name][:, :kept].double()
        change = torch.from_numpy(made[name] - model.source.read(tensors[name])).double()
        left = (whole[wanted] - narrow[reached]).double()
        penalty = RIDGE * float((h * h).mean())
        np.testing.assert_allclose(left.T @ h, penalty * change[:, :kept], rtol=1e-3, atol=2e-5 * float((left.T @ h).abs().max() + 1))
        assert not change[:, kept:].any()
        assert float((left**2).sum()) < float(((whole[wanted] - cut[reached]).double() ** 2).sum())


def test_a_matrix_without_a_rounding_stays(model: Model) -> None:
    weights = narrowed_weights(model, {}, _KEPT)
    name = "blk.1.ffn_down.weight"
    assert set(compensated(model, weights, _KEPT, TOKENS, rounded={name: lambda matrix: matrix}, progress=Silent())) == {name}


def test_the_change_is_that_of_ridge_regression() -> None:
    """The minimum of ‖r − ΔW h‖² + λ‖ΔW‖² is ordinary least squares with √λ I appended to the inputs."""
    rng = np.random.default_rng(1)
    h, r, penalty = rng.normal(size=(40, 6)), rng.normal(size=(40, 3)), 2.5
    expected = np.linalg.lstsq(np.vstack([h, np.sqrt(penalty) * np.eye(6)]), np.vstack([r, np.zeros((6, 3))]), rcond=None)[0].T
    found = least_squares(torch.from_numpy(h.T @ h), torch.from_numpy(r.T @ h), penalty=penalty)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
