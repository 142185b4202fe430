"""Budgets as people write them."""

from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.errors import BudgetError
from bitwright.spaces import parse_budget
from tests.sentences import sentence

UNITS = {"B": 1, "kB": 1000, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 1024, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
AMOUNTS = st.decimals(min_value=Decimal("0.001"), max_value=10**6, places=3)


@given(amount=AMOUNTS, unit=st.sampled_from(sorted(UNITS)), space=st.sampled_from(["", " ", "  "]), data=st.data())
def test_bytes_are_exact(amount: Decimal, unit: str, space: str, data: st.DataObject) -> None:
    written = data.draw(st.sampled_from([unit, unit.lower(), unit.upper()]))
    budget = parse_budget(f" {amount}{space}{written} ")
    assert budget.size_bytes(n_weights=1) == Fraction(amount) * UNITS[unit] // 1
    assert budget.text == f"{amount}{space}{written}"


@given(amount=AMOUNTS, n_weights=st.integers(1, 10**12))
def test_bits_per_weight_are_exact(amount: Decimal, n_weights: int) -> None:
    assert parse_budget(f"{amount}bpw").size_bytes(n_weights) == Fraction(amount) * n_weights // 8


def test_numbers_may_begin_or_end_with_the_point() -> None:
    assert parse_budget(".5GB").size_bytes(1) == 5 * 10**8
    assert parse_budget("90.MB").size_bytes(1) == 90 * 10**6


def test_a_budget_beyond_floats_is_still_a_number() -> None:
    assert parse_budget(f"1{'0' * 400}MB").size_bytes(1) == 10**406


@pytest.mark.parametrize("text", ["", "90", "MB", "90 mega", "-90MB", "90MBs", "9 0MB", "1e9B", "1,5GB", "nan MB", "inf GB", "4.6 bits", "1.2.3MB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BudgetError) as caught:
        parse_budget(text)
    sentence(caught.value, f"'{text}'", "90MB", "4.6bpw")


@pytest.mark.parametrize("text", ["0MB", "0.000GB", ".0bpw"])
def test_nothing_to_spend_is_refused(text: str) -> None:
    with pytest.raises(BudgetError) as caught:
        parse_budget(text)
    sentence(caught.value, f"'{text}'", "greater than zero")


@given(text=st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(BudgetError):
        assert parse_budget(text).size_bytes(10**9) >= 0
