"""Formats with a pair of low rank: sizes held to a count of numbers, and what does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.spaces import NATIVE_FORMATS, RankFormat

RANKS = tuple(form for form in NATIVE_FORMATS if isinstance(form, RankFormat))


@given(form=st.sampled_from(RANKS), n_rows=st.integers(1, 400), n_columns=st.integers(1, 400))
def test_a_size_is_that_of_the_matrix_and_of_both_factors(form: RankFormat, n_rows: int, n_columns: int) -> None:
    """A byte for every number of a factor, two for each row's and each column's scale, and the base as it is."""
    name, _, rank = form.name.partition("_R")
    if int(rank) > min(n_rows, n_columns):
        assert not form.fits((n_rows, n_columns))
        with pytest.raises(ValueError, match=f"rank of at least {rank}"):
            form.size_bytes((n_rows, n_columns))
    else:
        base = 0 if name == "SVD" else next(other for other in NATIVE_FORMATS if other.name == f"{name}_G64").size_bytes((n_rows, n_columns))
        assert form.size_bytes((n_rows, n_columns)) == base + (n_rows + n_columns) * (int(rank) + 2)
        assert 0 < form.shared_bytes(n_columns) < form.size_bytes((n_rows, n_columns))


def test_a_stack_of_matrices_has_no_pair() -> None:
    assert not any(form.fits((2, 512, 512)) or form.fits((512,)) for form in RANKS)


def test_they_are_offered_by_name_alone_and_told_from_bits() -> None:
    assert all(form.only_named and form.reduction == "low rank" for form in RANKS)
    assert len({form.name for form in NATIVE_FORMATS}) == len(NATIVE_FORMATS)
