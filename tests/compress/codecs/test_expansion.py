"""Packed rows to weights, held bit for bit to the description of a row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.compress import integer_codec, stored_type
from bitwright.compress.codecs.expansion import expanded
from bitwright.engines import LLAMA_CPP
from bitwright.spaces import INTEGER_FORMATS, IntegerFormat
from bitwright.testing.codec_contract import normal

INTEGERS = tuple(form for form in INTEGER_FORMATS if isinstance(form, IntegerFormat))


@given(form=st.sampled_from(INTEGERS), n_rows=st.integers(1, 5), n_columns=st.integers(1, 300), seed=st.integers(0, 99))
@settings(deadline=None)
def test_any_bytes_expand_to_what_the_codec_decodes(form: IntegerFormat, n_rows: int, n_columns: int, seed: int) -> None:
    packed = np.random.default_rng(seed).integers(0, 256, form.size_bytes((n_rows, n_columns)), dtype=np.uint8)
    expected = by_the_book(packed.reshape(n_rows, -1), form, n_columns)
    found = expanded(torch.from_numpy(packed).view(n_rows, -1), form, n_columns)
    assert np.array_equal(found.numpy(), expected, equal_nan=True)
    assert np.array_equal(integer_codec().decode(packed, form, (n_rows, n_columns)), expected, equal_nan=True)


def by_the_book(rows: np.ndarray, form: IntegerFormat, n_columns: int) -> np.ndarray:
    """Codes bit after bit, then scales, then minima: minimum + scale · code."""
    n_bytes, n_groups = -(-n_columns * form.bits // 8), form.n_groups(n_columns)
    bits = np.unpackbits(rows[:, :n_bytes], axis=1)[:, : n_columns * form.bits].reshape(len(rows), n_columns, form.bits)
    codes = (bits * (1 << np.arange(form.bits)[::-1])).sum(axis=2)
    halves = np.ascontiguousarray(rows[:, n_bytes:]).view(np.float16).astype(np.float32)
    scale, minimum = (part.repeat(form.group or n_columns, axis=1)[:, :n_columns] for part in (halves[:, :n_groups], halves[:, n_groups:]))
    with np.errstate(invalid="ignore"):  # any bytes are also infinite scales
        decoded: np.ndarray = codes.astype(np.float32) * scale + minimum
    return decoded


@pytest.mark.parametrize("form", INTEGERS, ids=lambda form: form.name)
def test_packed_weights_expand_to_what_the_codec_decodes(form: IntegerFormat) -> None:
    weights = normal(7, 172)
    packed = integer_codec().encode(weights, form, np.ones((1, 172), dtype=np.float32))
    found = expanded(torch.from_numpy(packed).view(7, -1), form, 172)
    assert np.array_equal(found.numpy(), integer_codec().decode(packed, form, (7, 172)))


def test_a_format_of_another_container_has_no_type_here() -> None:
    with pytest.raises(ValueError, match="Q4_K"):
        stored_type(LLAMA_CPP.format("Q4_K"))
