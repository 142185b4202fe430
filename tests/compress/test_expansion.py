"""Packed rows in torch, held to the codec bit for bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.compress import IntegerCodec
from bitwright.compress.expansion import expanded, stored_type, unpacked
from bitwright.spaces import INTEGER_FORMATS, LLAMA_CPP, IntegerFormat
from tests.compress.contract import normal

INTEGERS = tuple(form for form in INTEGER_FORMATS if isinstance(form, IntegerFormat))


@given(form=st.sampled_from(INTEGERS), n_rows=st.integers(1, 5), n_columns=st.integers(1, 300), seed=st.integers(0, 99))
@settings(deadline=None)
def test_any_bytes_expand_to_what_the_codec_decodes(form: IntegerFormat, n_rows: int, n_columns: int, seed: int) -> None:
    packed = np.random.default_rng(seed).integers(0, 256, form.size_bytes((n_rows, n_columns)), dtype=np.uint8)
    with np.errstate(invalid="ignore"):  # any bytes are also infinite scales
        expected = IntegerCodec().decode(packed, form, (n_rows, n_columns))
    found = expanded(torch.from_numpy(packed).view(n_rows, -1), form, n_columns)
    assert np.array_equal(found.numpy(), expected, equal_nan=True)


@pytest.mark.parametrize("form", INTEGERS, ids=lambda form: form.name)
def test_packed_weights_expand_to_what_the_codec_decodes(form: IntegerFormat) -> None:
    weights = normal(7, 172)
    packed = IntegerCodec().encode(weights, form, np.ones((1, 172), dtype=np.float32))
    found = expanded(torch.from_numpy(packed).view(7, -1), form, 172)
    assert np.array_equal(found.numpy(), IntegerCodec().decode(packed, form, (7, 172)))


@given(bits=st.integers(1, 8), n_codes=st.integers(1, 50), seed=st.integers(0, 99))
@settings(deadline=None)
def test_codes_come_back(bits: int, n_codes: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (3, n_codes), dtype=np.uint8)
    stream = np.packbits(np.unpackbits(codes[..., None], axis=2)[..., 8 - bits :].reshape(3, -1), axis=1)
    assert np.array_equal(unpacked(torch.from_numpy(stream), bits, n_codes).numpy(), codes)


def test_a_format_of_another_container_has_no_type_here() -> None:
    with pytest.raises(ValueError, match="Q4_K"):
        stored_type(LLAMA_CPP.format("Q4_K"))
