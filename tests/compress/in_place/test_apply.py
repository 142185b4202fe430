"""Replaced weights within a `with` block: the right ones, in the right places, and the old ones afterwards."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Floats, GgmlCodec, Model, PackedTensors, applied, load, matrix_shape, planned_weights, rounded_as
from bitwright.engines import LLAMA_CPP
from bitwright.spaces import Tensor, discover

Q4_0, Q8_0, BF16 = (LLAMA_CPP.format(name) for name in ("Q4_0", "Q8_0", "BF16"))


@pytest.fixture(scope="module", params=["llama_gqa", "tiny_mixtral", "llama_tied"])
def model(request: pytest.FixtureRequest) -> Model:
    return load(str(request.getfixturevalue(request.param)))


@pytest.fixture
def before(model: Model) -> Iterator[dict[str, torch.Tensor]]:
    """The weights before the test, which must be the weights after it."""
    saved = {name: weight.clone() for name, weight in model.module.state_dict().items()}
    yield saved
    after = model.module.state_dict()
    assert after.keys() == saved.keys()
    assert all(torch.equal(after[name], weight) for name, weight in saved.items())


def matrices(model: Model) -> list[Tensor]:
    return [tensor for unit in discover(model.tensors) for tensor in unit.tensors]


def in_engine(model: Model, tensor: Tensor) -> Floats:
    """Return the module's present weights of an engine tensor."""
    rows = [piece.to_engine(model.module.get_parameter(piece.parameter).detach()) for piece in model.pieces[tensor.name]]
    return torch.cat(rows).numpy()


def logits(model: Model) -> torch.Tensor:
    with torch.inference_mode():
        return model.module(torch.arange(12)[None]).logits


def test_the_module_computes_with_what_the_codec_decodes(model: Model, before: dict[str, torch.Tensor], tmp_path: Path) -> None:
    levels = PackedTensors(tmp_path, model.source, GgmlCodec(), {})
    formats = {tensor.name: Q4_0 if t % 2 else Q8_0 for t, tensor in enumerate(matrices(model))}
    original = logits(model)
    with applied(model, planned_weights(model, levels, formats=formats)):
        for tensor in matrices(model):
            assert np.array_equal(in_engine(model, tensor), levels.weights(tensor, formats[tensor.name]))
        changed = logits(model)
    assert not torch.equal(changed, original)
    assert torch.equal(logits(model), original)


def test_only_the_named_tensors_change(model: Model, before: dict[str, torch.Tensor]) -> None:
    chosen, *others = matrices(model)[::-1]
    kept = {tensor.name: in_engine(model, tensor) for tensor in others}
    with applied(model, {chosen.name: lambda: np.zeros(matrix_shape(chosen), np.float32)}):
        assert not in_engine(model, chosen).any()
        assert all(np.array_equal(in_engine(model, tensor), kept[tensor.name]) for tensor in others)


def test_weights_are_rounded_to_the_types_they_are_loaded_in(model: Model, before: dict[str, torch.Tensor]) -> None:
    name = next(name for name, weight in model.module.named_parameters() if weight.dim() > 1)
    with torch.no_grad():
        weight = model.module.get_parameter(name)
        original = weight.clone()
        weight.add_(1e-4)  # which bfloat16 does not hold
        expected = weight.bfloat16().float()
        with rounded_as(model, {name: torch.bfloat16, "a scale of a packed layer": torch.bfloat16}):
            assert torch.equal(weight, expected)
            assert not torch.equal(weight, original + 1e-4)
        assert torch.equal(weight, original + 1e-4)
        weight.copy_(original)


def test_tensors_that_keep_their_format_are_left_out(model: Model, tmp_path: Path) -> None:
    levels = PackedTensors(tmp_path, model.source, GgmlCodec(), {})
    first, second, *_ = matrices(model)
    assert planned_weights(model, levels, formats={first.name: BF16, second.name: Q4_0}).keys() == {second.name}
    assert planned_weights(model, levels, formats={}) == {}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_old_weights_come_back_when_the_block_raises(model: Model, before: dict[str, torch.Tensor], error: type[BaseException]) -> None:
    first = matrices(model)[0]
    with pytest.raises(error), applied(model, {first.name: lambda: np.zeros(matrix_shape(first), np.float32)}):
        raise error


def test_the_old_weights_come_back_when_a_matrix_cannot_be_made(model: Model, before: dict[str, torch.Tensor]) -> None:
    def fails() -> Floats:
        raise ValueError("no matrix")

    first, second, *_ = matrices(model)
    entered = False
    with (
        pytest.raises(ValueError, match="no matrix"),
        applied(model, {first.name: lambda: np.zeros(matrix_shape(first), np.float32), second.name: fails}),
    ):
        entered = True
    assert not entered


def test_blocks_may_lie_in_one_another(model: Model, before: dict[str, torch.Tensor]) -> None:
    first, second, *_ = matrices(model)
    with applied(model, {first.name: lambda: np.full(matrix_shape(first), 1, np.float32)}):
        with applied(model, {tensor.name: lambda tensor=tensor: np.full(matrix_shape(tensor), 2, np.float32) for tensor in (first, second)}):
            assert (in_engine(model, first) == 2).all()
            assert (in_engine(model, second) == 2).all()
        assert (in_engine(model, first) == 1).all()


def test_no_matrices_change_nothing(model: Model, before: dict[str, torch.Tensor]) -> None:
    with applied(model, {}):
        assert all(torch.equal(model.module.state_dict()[name], weight) for name, weight in before.items())


def test_an_expert_lands_in_its_own_slice(tiny_mixtral: Path) -> None:
    model = load(str(tiny_mixtral))
    experts = model.module.get_parameter("model.layers.1.mlp.experts.gate_up_proj")  # (n_experts, 2 n_rows, n_columns)
    other_block = model.module.get_parameter("model.layers.0.mlp.experts.gate_up_proj").detach().clone()
    up_before, n_rows = experts.detach()[:, 96:].clone(), 96
    numbered = np.repeat(np.arange(4, dtype=np.float32), n_rows)[:, None] * np.ones((1, 64), np.float32)
    with applied(model, {"blk.1.ffn_gate_exps.weight": lambda: numbered}):
        for expert in range(4):
            assert (experts[expert, :n_rows] == expert).all()
        assert torch.equal(experts[:, n_rows:], up_before)
        assert torch.equal(model.module.get_parameter("model.layers.0.mlp.experts.gate_up_proj"), other_block)


def test_a_tied_head_changes_with_the_embedding(llama_tied: Path) -> None:
    model = load(str(llama_tied))
    with applied(model, {"token_embd.weight": lambda: np.zeros((384, 64), np.float32)}):
        assert not model.module.get_output_embeddings().weight.any()
        assert not logits(model).any()
    assert model.module.get_output_embeddings().weight.any()
