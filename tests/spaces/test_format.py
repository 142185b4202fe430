"""Formats by hand; `contract.py` holds all of them to libggml."""

import pytest

from bitwright.compress.models.gguf.libggml import requires_importance, row_size
from bitwright.spaces import GGML_FORMATS, BlockFormat, Format


def named(name: str) -> Format:
    return next(form for form in GGML_FORMATS if form.name == name)


@pytest.mark.parametrize(
    ("name", "bits_per_weight"),
    [("F32", 32), ("BF16", 16), ("Q8_0", 8.5), ("Q6_K", 6.5625), ("Q4_K", 4.5), ("IQ4_XS", 4.25), ("Q2_K", 2.625), ("IQ1_S", 1.5625)],
)
def test_bits_per_weight_are_those_that_everyone_quotes(name: str, bits_per_weight: float) -> None:
    assert named(name).bits_per_weight == bits_per_weight


def test_size_by_hand() -> None:
    assert named("Q4_K").size_bytes((3, 5, 512)) == 3 * 5 * 2 * 144
    assert BlockFormat("Three", 3, 7).size_bytes((6,)) == 14


def test_leading_dimensions_do_not_make_up_for_a_short_row() -> None:
    assert not named("Q4_K").fits((256, 128))
    with pytest.raises(ValueError, match="Q4_K stores blocks of 256 weights, which do not divide a row of 128"):
        named("Q4_K").size_bytes((256, 128))


def test_the_table_would_notice_a_wrong_row() -> None:
    """The comparison of the contract fails for a size that is off by a byte."""
    assert all(row_size(form.name, 512) == form.size_bytes((512,)) for form in GGML_FORMATS)
    assert row_size("Q4_K", 512) != BlockFormat("Q4_K", 256, 145).size_bytes((512,))


def test_libggml_asks_for_importance_somewhere() -> None:
    assert any(requires_importance(form.name) for form in GGML_FORMATS)
    assert not named("Q4_K").needs_importance
