"""Inputs of layers rounded while measuring as the engine does: the arithmetic of compressed-tensors, and nothing left behind."""

from pathlib import Path

import numpy as np
import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

from bitwright.compress import Model, PackedTensors, applied, choice_loader, load, packed_codec, planned_weights, swapping
from bitwright.compress.in_place.rounded_inputs import rounded_inputs
from bitwright.engines.compressed_tensors.target import TRANSFORMERS, VLLM
from bitwright.spaces import ByteFormat, byte_formats, discover

IDS = torch.tensor([[1, 5, 9, 100, 33, 2, 77, 4]])
ROUNDING = [form for form in byte_formats(127.5) if form.input_steps]


def tokens() -> torch.Tensor:
    x = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 7, 48)).astype(np.float32))
    x[0, 2], x[1, 3, 5] = 0, 40
    return x


@pytest.mark.parametrize("form", ROUNDING, ids=lambda form: form.name)
def test_the_arithmetic_is_that_of_compressed_tensors(form: ByteFormat) -> None:
    args = QuantizationArgs(num_bits=8, type=form.kind, symmetric=True, strategy="token", dynamic=True)
    scale, zero = compute_dynamic_scales_and_zp(value=tokens(), args=args, module=torch.nn.Linear(48, 2))
    assert torch.equal(rounded_inputs(tokens(), form), fake_quantize(tokens(), scale, zero, args))


def test_vllm_has_127_steps_where_compressed_tensors_has_half_a_step_more() -> None:
    there, here = (next(form for form in target.formats if form.name == "W8A8_ROW") for target in (VLLM, TRANSFORMERS))
    x = torch.tensor([[127.0, 1.0, -0.4]])
    assert torch.equal(rounded_inputs(x, there), torch.tensor([[127.0, 1.0, 0.0]]))
    assert not torch.equal(rounded_inputs(x, here), rounded_inputs(x, there))


@pytest.mark.parametrize("form", ROUNDING, ids=lambda form: form.name)
def test_gradients_pass(form: ByteFormat) -> None:
    x = tokens().requires_grad_()
    found = rounded_inputs(x, form)
    assert torch.allclose(found.detach(), rounded_inputs(tokens(), form), atol=1e-5)
    found.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.module(IDS).logits
    return found


def test_a_search_and_a_plan_measure_the_same_and_leave_nothing(llama_tied: Path, tmp_path: Path) -> None:
    tied = load(str(llama_tied))
    levels = PackedTensors(tmp_path, tied.source, packed_codec(), {})
    space = TRANSFORMERS.space(discover(tied.tensors), menu=("BF16", "W8A8_ROW"), fixed_bytes=0, n_weights=1)
    column = [form.name for form in space.formats].index("W8A8_ROW")
    choice = np.array([column if row[column] else np.flatnonzero(row)[0] for row in space.offered])
    formats = {tensor.name: space.formats[f] for unit, f in zip(space.units, choice, strict=True) for tensor in unit.tensors}
    for tensor in tied.tensors:
        if tensor.name in formats:
            levels.packed(tensor, formats[tensor.name])
    before, weights = logits(tied), planned_weights(tied, levels, formats=formats)
    with applied(tied, weights):
        planned = logits(tied)
    with applied(tied, {name: lambda weight=weight: weight() for name, weight in weights.items()}):
        weights_alone = logits(tied)
    with swapping(tied) as swapper:
        put = choice_loader(swapper, tied, levels, space)
        put(choice)
        assert torch.equal(logits(tied), planned)
        put(np.array([np.flatnonzero(row)[0] for row in space.offered]))
        assert torch.allclose(logits(tied), before, atol=0.1)
    assert torch.equal(logits(tied), before)
    assert not torch.equal(planned, weights_alone)


def test_the_inputs_of_experts_cannot_be_rounded(tiny_mixtral: Path, tmp_path: Path) -> None:
    mixture = load(str(tiny_mixtral))
    tensor = next(tensor for tensor in mixture.tensors if tensor.name.endswith("_exps.weight"))
    weights = planned_weights(mixture, PackedTensors(tmp_path, mixture.source, packed_codec(), {}), formats={tensor.name: ROUNDING[0]})
    with pytest.raises(ValueError, match=tensor.name), applied(mixture, weights):
        pass
