"""Formats with fewer weights: their sizes held to a count of bits, and what does not fit."""

from math import ceil, comb, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.engines import NATIVE
from bitwright.spaces import NATIVE_FORMATS, Format, NOfM, SignFormat, SparseFormat, share_format, without_share
from bitwright.testing.format_contract import FormatContract

SPARSE = tuple(form for form in NATIVE_FORMATS if isinstance(form, SparseFormat))
BITS = {"BF16": 16} | {f"INT{bits}": bits for bits in range(2, 9)}


class TestSparse(FormatContract):
    formats = SPARSE


class TestSigns(FormatContract):
    formats = tuple(form for form in NATIVE_FORMATS if isinstance(form, SignFormat))


def named(name: str) -> Format:
    return next(form for form in NATIVE_FORMATS if form.name == name)


def counted_bytes(form: SparseFormat, n_rows: int, n_columns: int) -> int:
    """Count by the name alone: codes of the kept, four bytes for every 64 of them, and positions."""
    base, pattern = form.name.split("_")
    if pattern[0] == "S":
        kept, positions = n_columns - n_columns * int(pattern[1:]) // 100, ceil(n_columns / 8)
    else:
        n, m = map(int, pattern.split("OF"))
        kept, positions = n_columns * n // m, ceil(n_columns / m * ceil(log2(comb(m, n))) / 8)
    scales = 0 if base == "BF16" else 4 * ceil(kept / 64)
    return n_rows * (ceil(kept * BITS[base] / 8) + scales + positions)


@given(form=st.sampled_from(SPARSE), n_rows=st.integers(1, 9), eighths=st.integers(1, 99))
def test_a_size_is_the_count_of_its_bits(form: SparseFormat, n_rows: int, eighths: int) -> None:
    assert form.size_bytes((n_rows, 8 * eighths)) == counted_bytes(form, n_rows, 8 * eighths)
    assert form.size_bytes((3, n_rows, 8 * eighths)) == 3 * form.size_bytes((n_rows, 8 * eighths))


@pytest.mark.parametrize(
    ("name", "bits"), [("INT4_2OF4", 3), ("INT4_4OF8", 3.125), ("INT8_2OF4", 5), ("INT4_1OF4", 1.625), ("INT4_S50", 3.25), ("INT1_G64", 1.25)]
)
def test_bits_per_weight(name: str, bits: float) -> None:
    assert named(name).bits_per_weight == pytest.approx(bits)


def test_n_of_m_fits_rows_that_m_divides_alone() -> None:
    for form in SPARSE:
        m = form.pattern.of if isinstance(form.pattern, NOfM) else 1
        for n_columns in range(1, 20):
            assert form.fits((2, n_columns)) == (n_columns % m == 0), form.name
        assert not form.fits((2, 0))
        assert form.condition == (f"{m} must divide a row" if m > 1 else "a row must have a weight")


def test_they_are_offered_by_name_alone() -> None:
    few = (SparseFormat, SignFormat)
    assert all(form.only_named and bool(form.reduction) == isinstance(form, SparseFormat) for form in NATIVE_FORMATS if isinstance(form, few))


@pytest.mark.parametrize(("name", "kept"), [("INT4_S37.5", 10), ("BF16_S0.001", 16), ("INT2_S99", 1), ("INT3_S6.25", 15), ("INT4_S50", 8)])
def test_any_share_has_a_format(name: str, kept: int) -> None:
    form = share_format(name)
    assert form is not None
    assert (form.name, form.pattern.n_kept(16)) == (name, kept)
    assert form == next((listed for listed in SPARSE if listed.name == name), form)
    assert NATIVE.format(name) == form
    assert NATIVE.with_made([name, "INT4_G64", "nothing"]).formats == (*NATIVE.formats, *([] if name == "INT4_S50" else [form]))


@pytest.mark.parametrize("name", ["INT4_S0", "INT4_S100", "INT4_S37.50", "INT4_S037", "INT9_S50", "Q4_0_S50", "INT4_S12.3456"])
def test_no_other_name_is_a_share(name: str) -> None:
    assert share_format(name) is None


@given(pruned=st.integers(0, 400), n_columns=st.integers(401, 99_999))
def test_every_number_of_weights_of_a_row_has_a_share(pruned: int, n_columns: int) -> None:
    form = without_share("BF16", -(-pruned * 100_000 // n_columns))
    assert n_columns - form.pattern.n_kept(n_columns) == pruned
