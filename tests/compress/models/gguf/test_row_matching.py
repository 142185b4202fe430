"""Tensors of a file are found in a module by their values: whatever the order, the parts, the transposes and the equal rows."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor as Torch

from bitwright.compress import Bytes, Floats, ParameterSlice, Source, float_bytes, weights_of
from bitwright.compress.models.architectures import MODEL_TYPES, bind, lay_out
from bitwright.compress.models.checkpoints.hugging_face import tensors_of
from bitwright.compress.models.gguf.row_matching import Binding, bind_by_rows
from bitwright.spaces import Tensor
from tests.compress import tiny_models as tiny


class Weights(Source):
    """A file of float tensors that a test made."""

    def __init__(self, weights: Mapping[str, Torch], stored: str = "F32") -> None:
        self.name = self.architecture = "made"
        self.metadata = ()
        self.tensors = tuple(Tensor(name, tuple(weight.shape), stored) for name, weight in weights.items())
        self._weights = {name: weight.clone() for name, weight in weights.items()}

    def read(self, tensor: Tensor) -> Floats:
        """Read weights as float32 `(n_rows, n_columns)`: all dimensions but the last are folded into rows."""
        return self._weights[tensor.name].reshape(-1, tensor.shape[-1]).numpy().copy()

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the tensor's bytes `(n_bytes,)` in the format `tensor.stored`."""
        return float_bytes(tensor.stored, self._weights[tensor.name])


def matched(parameters: Mapping[str, Torch], weights: Mapping[str, Torch], hints: Mapping[str, str] | None = None) -> Binding:
    """The binding of a file of `weights`; every piece has the values of its tensor."""
    source = Weights(weights)
    found = bind_by_rows(source, parameters, hints or {})
    for tensor in source.tensors:
        if tensor.name in found.pieces:
            rows = torch.cat([piece.to_engine(parameters[piece.parameter].detach()) for piece in found.pieces[tensor.name]])
            assert np.array_equal(rows.numpy(), source.read(tensor))
    return found


def randn(*shape: int) -> Torch:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_of_the_table_is_bound_as_the_table_says(family: str) -> None:
    model_type, settings, _ = tiny.FAMILIES[family]
    module = tiny.module(model_type, settings, dtype=torch.bfloat16)
    architecture, weights = MODEL_TYPES[model_type], weights_of(module)
    rows = {
        name: torch.cat([piece.to_engine(weights[piece.parameter].detach()) for piece in pieces])
        for name, pieces in lay_out(module, architecture).items()
    }
    found = matched(weights, {tensor.name: rows[tensor.name].reshape(tensor.shape) for tensor in tensors_of(module, "F32") if tensor.name in rows})
    assert found.pieces == bind(module, architecture)
    assert not found.copies
    assert not found.unfound


def test_a_part_of_a_fused_matrix_and_several_matrices_in_one() -> None:
    parameters = {"blocks.0.qkv": randn(24, 8), "blocks.0.gate": randn(5, 8), "blocks.0.up": randn(6, 8)}
    joined = torch.cat([parameters["blocks.0.gate"], parameters["blocks.0.up"]])
    found = matched(parameters, {"blk.0.attn_k.weight": parameters["blocks.0.qkv"][8:16], "blk.0.ffn_up.weight": joined})
    assert found.pieces == {
        "blk.0.attn_k.weight": (ParameterSlice("blocks.0.qkv", -1, range(8, 16)),),
        "blk.0.ffn_up.weight": (ParameterSlice("blocks.0.gate", -1, range(5)), ParameterSlice("blocks.0.up", -1, range(6))),
    }


def test_transposes_stacks_and_columns_in_another_order() -> None:
    order = [3, 0, 2, 1, 4]
    parameters = {"conv1d": randn(8, 12), "experts": randn(3, 8, 10), "out": randn(7, 5), "kv_b": randn(20, 6)}
    heads = parameters["kv_b"].reshape(2, 10, 6)[:, :4]  # the key half of two heads
    found = matched(
        parameters,
        {
            "qkv": parameters["conv1d"].T.contiguous(),
            "up_exps": parameters["experts"][:, :, 1::2].mT.contiguous(),
            "ssm_out": parameters["out"][:, order].contiguous(),
            "k_b": heads.mT.contiguous(),
        },
    )
    assert found.pieces == {
        "qkv": (ParameterSlice("conv1d", -1, range(12), None, transposed=True),),
        "up_exps": tuple(ParameterSlice("experts", expert, range(1, 10, 2), None, transposed=True) for expert in range(3)),
        "ssm_out": (ParameterSlice("out", -1, range(7), tuple(order)),),
        "k_b": tuple(ParameterSlice("kv_b", -1, range(6), range(start, start + 4), transposed=True) for start in (0, 10)),
    }


def test_experts_that_are_modules_of_their_own_are_one_piece_each() -> None:
    parameters = {f"layers.0.experts.{expert}.w1": randn(6, 4) + expert for expert in range(3)}
    found = matched(parameters, {"blk.0.ffn_gate_exps.weight": torch.stack(list(parameters.values()))})
    assert found.pieces["blk.0.ffn_gate_exps.weight"] == tuple(ParameterSlice(name, -1, range(6)) for name in parameters)


def test_equal_rows_are_told_apart_by_what_is_next_to_them() -> None:
    fused = randn(12, 6)
    fused[[1, 5, 6, 11]] = 0
    weights = {"blk.0.attn_q.weight": fused[:6], "blk.0.attn_k.weight": fused[6:]}
    found = matched({"h.0.qkv": fused, "h.1.qkv": torch.zeros(12, 6)}, weights)
    assert [found.pieces[name][0].rows for name in weights] == [range(6), range(6, 12)]


def test_equal_matrices_are_told_apart_by_hints_and_blocks() -> None:
    same = randn(9, 4)
    parameters = {"layers.1.up": same.clone(), "layers.0.up": same.clone(), "head": same.clone(), "embed": same.clone()}
    weights = dict.fromkeys(["output.weight", "token_embd.weight", "blk.0.ffn_up.weight", "blk.1.ffn_up.weight"], same)
    found = matched(parameters, weights, {"output.weight": "head", "token_embd.weight": "embed"})
    assert {name: piece.parameter for name, (piece,) in found.pieces.items()} == {
        "output.weight": "head",
        "token_embd.weight": "embed",
        "blk.0.ffn_up.weight": "layers.0.up",
        "blk.1.ffn_up.weight": "layers.1.up",
    }


def test_a_second_tensor_of_the_same_rows_is_a_copy() -> None:
    table = randn(10, 4)
    found = matched({"embed": table}, {"token_embd.weight": table, "output.weight": table})
    assert list(found.pieces) == ["token_embd.weight"]
    assert [tensor.name for tensor in found.copies] == ["output.weight"]


def test_a_file_of_half_floats_holds_rounded_rows() -> None:
    weight = randn(8, 6)
    source = Weights({"blk.0.ffn_up.weight": weight.half().float()}, "F16")
    found = bind_by_rows(source, {"layers.0.up": weight}, {})
    assert found.pieces == {"blk.0.ffn_up.weight": (ParameterSlice("layers.0.up", -1, range(8)),)}
    assert found.rounded == {"blk.0.ffn_up.weight"}


def test_vectors_are_found_up_to_what_the_converter_changes() -> None:
    parameters = {"layers.0.norm": randn(8), "layers.0.A_log": randn(6, 4), "layers.0.bias": randn(12), "layers.0.conv": randn(8, 1, 4)}
    weights = {
        "blk.0.attn_norm.weight": parameters["layers.0.norm"] + 1,
        "blk.0.ssm_a": -parameters["layers.0.A_log"].exp(),
        "blk.0.attn_q.bias": parameters["layers.0.bias"][[3, 1, 2]],
        "blk.0.ssm_conv1d.weight": parameters["layers.0.conv"][:, 0],
    }
    found = matched(parameters, weights)
    assert not found.unfound
    assert not found.pieces


def test_what_is_nowhere_is_told() -> None:
    weight = randn(8, 6)
    other = weight.clone()
    other[5, 3] += 0.01
    found = matched({"layers.0.up": weight, "layers.0.norm": randn(8)}, {"blk.0.ffn_up.weight": other, "blk.0.attn_norm.weight": randn(8) * 2})
    assert [tensor.name for tensor in found.unfound] == ["blk.0.ffn_up.weight", "blk.0.attn_norm.weight"]
    assert not found.pieces
