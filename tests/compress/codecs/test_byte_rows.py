"""Layers of one byte a weight: the package that transformers and vLLM load them with finds the very weights that were measured."""

import numpy as np
import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

from bitwright.compress import layer_bytes, layer_tensors, packed_codec
from bitwright.compress.codecs.rounding.clipping import SearchedClipping
from bitwright.errors import ModelError
from bitwright.spaces import ByteFormat, byte_formats
from tests.sentences import sentence

FORMATS = byte_formats(127)
SHAPE = (40, 96)
UNKNOWN = np.empty((0, SHAPE[1]), np.float32)
WORST = {"int": 2e-4, "float": 1e-3}  # relative squared errors
TYPES = {"int": torch.int8, "float": torch.float8_e4m3fn}


def normal(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(5).normal(0.1, 1, shape).astype(np.float32)


def scheme(form: ByteFormat) -> QuantizationScheme:
    return QuantizationScheme(targets=["a"], weights=QuantizationArgs(num_bits=8, type=form.kind, symmetric=True, strategy="channel"))


def in_torch(packed: np.ndarray, form: ByteFormat) -> dict[str, torch.Tensor]:
    found = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in layer_tensors(packed, form, SHAPE).items()}
    return {"weight": found["weight"].view(TYPES[form.kind]), "weight_scale": found["weight_scale"].view(torch.bfloat16).float()}


def compressor(form: ByteFormat) -> type[BaseCompressor]:
    found: type[BaseCompressor] = BaseCompressor.get_value_from_registry(f"{form.kind}-quantized")
    return found


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_the_package_decompresses_to_the_very_weights(form: ByteFormat) -> None:
    packed = packed_codec().encode(normal(), form, UNKNOWN)
    back = packed_codec().decode(packed, form, SHAPE)
    found = compressor(form).decompress(in_torch(packed, form), scheme(form))
    assert np.array_equal(found["weight"].numpy(), back)
    assert ((back - normal()) ** 2).sum() / (normal() ** 2).sum() < WORST[form.kind]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_the_package_compresses_to_the_very_bytes(form: ByteFormat) -> None:
    """The original weights, given to the package with our scales: the same nearest of two, and the same of two that are as near."""
    ours = in_torch(packed_codec().encode(normal(), form, UNKNOWN), form)
    theirs = compressor(form).compress({"weight": torch.from_numpy(normal()), "weight_scale": ours["weight_scale"]}, scheme(form))
    assert torch.equal(theirs["weight"].view(torch.uint8), ours["weight"].view(torch.uint8))


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_size_is_the_bytes_of_the_layer(form: ByteFormat) -> None:
    packed = packed_codec().encode(normal(), form, UNKNOWN)
    layer = layer_tensors(packed, form, SHAPE)
    assert packed.nbytes == sum(values.nbytes for values in layer.values()) == form.size_bytes(SHAPE)
    assert np.array_equal(layer_bytes(layer, form, SHAPE), packed)
    assert form.size_bytes((3, *SHAPE)) == 3 * form.size_bytes(SHAPE)
    with pytest.raises(ValueError, match=form.name):
        form.size_bytes((96,))


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_rows_are_packed_one_by_one_and_zeros_stay_zeros(form: ByteFormat) -> None:
    weights = normal()
    weights[3] = 0
    whole = packed_codec().encode(weights, form, UNKNOWN)
    assert np.array_equal(whole, np.concatenate([packed_codec().encode(row[None], form, UNKNOWN) for row in weights]))
    assert not packed_codec().decode(whole, form, SHAPE)[3].any()


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_a_searched_range_is_better_where_a_far_weight_counts_little(form: ByteFormat) -> None:
    weights, importance = normal(), np.ones((1, SHAPE[1]), np.float32)
    weights[:, 0], importance[0, 0] = 5, 1e-9
    errors = [
        float((importance * (codec.decode(codec.encode(weights, form, importance), form, SHAPE) - weights) ** 2).sum())
        for codec in (packed_codec(), packed_codec(SearchedClipping()))
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_weights_that_are_not_finite_are_refused(form: ByteFormat) -> None:
    weights = normal()
    weights[1, 2] = np.nan
    with pytest.raises(ModelError) as caught:
        packed_codec().encode(weights, form, UNKNOWN)
    assert sentence(caught.value, "finite")
