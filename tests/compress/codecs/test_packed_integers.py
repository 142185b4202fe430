import numpy as np
import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from hypothesis import given
from hypothesis import strategies as st

from bitwright.compress import layer_tensors, packed_codec
from bitwright.compress.codecs.packed_integers import grid_of, packed_words, unpacked_words
from bitwright.compress.codecs.rounding.rounding import RoundToNearest
from bitwright.spaces import PACKED_FORMATS, PackedFormat

PACKED = [form for form in PACKED_FORMATS if isinstance(form, PackedFormat)]
CODEC, SHAPE = packed_codec(), (40, 128)


def normal(shape: tuple[int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(5).normal(0.1, 1, shape).astype(np.float32)


def scheme(form: PackedFormat) -> QuantizationScheme:
    size = {"strategy": "group", "group_size": form.group} if form.group else {"strategy": "channel"}
    return QuantizationScheme(targets=["a"], weights=QuantizationArgs(num_bits=form.bits, symmetric=not form.zero_points, **size))


def in_torch(layer: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the layer as the loader of a float32 model hands it to the package: the scales widened."""
    found = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in layer.items()}
    return found | {"weight_scale": found["weight_scale"].view(torch.bfloat16).float()}


@pytest.mark.parametrize("form", PACKED, ids=lambda form: form.name)
def test_the_package_decompresses_to_the_very_weights(form: PackedFormat) -> None:
    packed = CODEC.encode(normal(), form, np.empty((0, SHAPE[1]), np.float32))
    found = BaseCompressor.get_value_from_registry("pack-quantized").decompress(in_torch(layer_tensors(packed, form, SHAPE)), scheme(form))
    assert np.array_equal(found["weight"].numpy(), CODEC.decode(packed, form, SHAPE))


@pytest.mark.parametrize("form", PACKED, ids=lambda form: form.name)
def test_the_package_compresses_to_the_very_bytes(form: PackedFormat) -> None:
    """The weights on the grid, given to the package with our scales and zero points."""
    packed = CODEC.encode(normal(), form, np.empty((0, SHAPE[1]), np.float32))
    ours = layer_tensors(packed, form, SHAPE)
    place = RoundToNearest().rounded(normal(), grid_of(form), group=form.group or SHAPE[1], importance=np.ones(SHAPE[1], np.float32)).placement
    state = {"weight": torch.from_numpy(CODEC.decode(packed, form, SHAPE)), "weight_scale": torch.from_numpy(place.scale)}
    state["weight_zero_point"] = torch.from_numpy(place.anchor - 2 ** (form.bits - 1)).to(torch.int8)
    theirs = BaseCompressor.get_value_from_registry("pack-quantized").compress(state, scheme(form))
    assert theirs.keys() == ours.keys()
    expected = in_torch(ours)
    assert all(torch.equal(theirs[name], expected[name]) for name in ours)


@pytest.mark.parametrize("form", PACKED, ids=lambda form: form.name)
def test_a_size_is_the_bytes_of_the_layer(form: PackedFormat) -> None:
    for shape in (SHAPE, (33, 256), (1, 128)):
        layer = layer_tensors(CODEC.encode(normal(shape), form, np.empty((0, shape[1]), np.float32)), form, shape)
        assert sum(values.nbytes for values in layer.values()) == form.size_bytes(shape)
    assert form.size_bytes((3, *SHAPE)) == 3 * form.size_bytes(SHAPE)


@given(bits=st.integers(2, 8), n=st.integers(1, 5), n_codes=st.integers(1, 70), seed=st.integers(0, 99))
def test_words_round_trip(bits: int, n: int, n_codes: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (n, n_codes), dtype=np.uint8)
    assert np.array_equal(unpacked_words(packed_words(codes, bits), bits, n_codes), codes)


def test_rows_that_a_group_does_not_divide_are_not_offered() -> None:
    form = next(form for form in PACKED if form.name == "W4_G64")
    assert not form.fits((4, 96))
    assert not form.fits((64,))
    with pytest.raises(ValueError, match="W4_G64"):
        form.size_bytes((4, 96))
