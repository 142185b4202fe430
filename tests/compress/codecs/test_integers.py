"""Packed integers, held to a packer that goes weight by weight."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bitwright.compress import integer_codec
from bitwright.spaces import INTEGER_FORMATS, IntegerFormat
from bitwright.testing.codec_contract import CodecContract, normal, unknown

INTEGERS = tuple(form for form in INTEGER_FORMATS if isinstance(form, IntegerFormat))
#: error of a uniform code of 2^b levels over the range of 32 to 256 normal weights, generously
WORST = {form.name: 5.0 * 4.0**-form.bits for form in INTEGERS}


class TestIntegers(CodecContract):
    codec = integer_codec()
    formats = INTEGERS
    worst = WORST

    def block(self, form: IntegerFormat) -> int:
        return form.group or 44


def packed_slowly(row: np.ndarray, form: IntegerFormat) -> bytes:
    """Pack a row one weight at a time, the bits as text."""
    group, text, scales, minima = form.group or len(row), "", [], []
    for start in range(0, len(row), group):
        part = row[start : start + group]
        minimum = np.float16(part.min())
        scale = np.float16((float(part.max()) - float(minimum)) / (2**form.bits - 1))
        for weight in part:
            code = round(float((weight - np.float32(minimum)) / np.float32(scale))) if scale > 0 else 0
            text += format(min(max(code, 0), 2**form.bits - 1), f"0{form.bits}b")
        scales.append(scale)
        minima.append(minimum)
    text += "0" * (-len(text) % 8)
    codes = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    return codes + np.array(scales).tobytes() + np.array(minima).tobytes()


@given(form=st.sampled_from(INTEGERS), n_columns=st.integers(1, 300), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_packs_as_the_slow_packer_does(form: IntegerFormat, n_columns: int, seed: int) -> None:
    weights = normal(2, n_columns, seed)
    packed = integer_codec().encode(weights, form, unknown(n_columns))
    assert packed.tobytes() == b"".join(packed_slowly(row, form) for row in weights)
    assert len(packed) == form.size_bytes(weights.shape)


@given(form=st.sampled_from(INTEGERS), n_columns=st.integers(1, 200), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_no_weight_moves_by_more_than_half_a_step(form: IntegerFormat, n_columns: int, seed: int) -> None:
    weights = normal(3, n_columns, seed)
    back = integer_codec().decode(integer_codec().encode(weights, form, unknown(n_columns)), form, weights.shape)
    spans = [np.ptp(row[i : i + (form.group or n_columns)]) for row in weights for i in range(0, n_columns, form.group or n_columns)]
    half = max(spans) / (2**form.bits - 1) / 2
    assert np.abs(back - weights).max() <= half + 4e-3 * np.abs(weights).max()  # and the rounding of scale and minimum


def test_what_the_codes_meet_comes_back() -> None:
    codec, form = integer_codec(), next(form for form in INTEGERS if form.name == "INT3_G32")
    weights = np.array([[0.5] * 32 + [-2.0, 5.0]], dtype=np.float32)  # a constant group, and a short one of a range of seven steps
    np.testing.assert_array_equal(codec.decode(codec.encode(weights, form, unknown(34)), form, (1, 34)), weights)


def test_the_largest_half_floats_have_a_finite_scale() -> None:
    codec, form = integer_codec(), next(form for form in INTEGERS if form.name == "INT3_G32")
    weights = np.array([[-65504.0, 65504.0]], dtype=np.float32)
    np.testing.assert_allclose(codec.decode(codec.encode(weights, form, unknown(2)), form, (1, 2)), weights, rtol=1e-3)
