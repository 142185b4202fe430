from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.engines.no_engine import INTEGERS
from bitwright.search import scattered, sizes_between
from bitwright.spaces import Space, Tensor, Unit

MENU = ("INT2_G32", "INT3_G32", "INT4_G32", "INT6_G32")


def space(n_units: int, seed: int) -> Space:
    """Units of unequal size, all of whose formats fit."""
    rng = np.random.default_rng(seed)
    units = tuple(Unit(f"u{i}", i, "u", (Tensor(f"u{i}", (int(rng.integers(8, 200)), 64), "F32"),)) for i in range(n_units))
    return INTEGERS.space(units, menu=MENU, fixed_bytes=1000, n_weights=sum(unit.n_weights for unit in units))


@given(st.integers(20, 40), st.integers(0, 10**6), st.floats(0.05, 0.95))
def test_sizes_are_met_and_only_what_is_offered_is_taken(n_units: int, seed: int, share: float) -> None:
    made = space(n_units, seed)
    sizes = sizes_between(made, share, share, 3)
    choices = scattered(made, sizes, rng=np.random.default_rng(seed))
    assert choices.shape == (3, n_units)
    assert made.offered[np.arange(n_units), choices].all()
    for choice, size in zip(choices, sizes, strict=True):
        assert made.total_bytes(choice) == pytest.approx(size, rel=0.03)


def test_choices_of_one_size_differ_and_hold_neighbouring_widths() -> None:
    made = space(40, 0)
    choices = scattered(made, np.repeat(sizes_between(made, 0.5, 0.5, 1), 20), rng=np.random.default_rng(0))
    assert len({choice.tobytes() for choice in choices}) == 20
    sizes = made.total_bits(choices)
    assert np.ptp(sizes) / sizes.mean() < 0.011
    width = np.array([form.bits_per_weight for form in made.formats])[choices]
    assert 0.5 < width.std(axis=1).mean() < 1.5


def test_sizes_are_evenly_spaced_by_ratio() -> None:
    made = space(5, 0)
    sizes = sizes_between(made, 0.0, 1.0, 5)
    assert sizes[0] == made.total_bytes(made.smallest())
    assert sizes[-1] == pytest.approx(made.total_bytes(made.largest()))
    np.testing.assert_allclose(sizes[1:] / sizes[:-1], sizes[1] / sizes[0])


def test_the_same_seed_draws_the_same() -> None:
    made = space(10, 1)
    sizes = sizes_between(made, 0.1, 0.9, 4)
    first, again, other = (scattered(made, sizes, rng=np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_none_is_a_table_of_none() -> None:
    assert scattered(space(4, 0), np.empty(0), rng=np.random.default_rng(0)).shape == (0, 4)


def test_formats_that_no_unit_is_offered_change_no_draw() -> None:
    wide = space(20, 1)
    columns = np.flatnonzero(wide.offered.any(axis=0))
    formats = tuple(wide.formats[column] for column in columns)
    narrow = replace(wide, formats=formats, size_bits=wide.size_bits[:, columns], offered=wide.offered[:, columns])
    assert len(columns) < len(wide.formats)
    drawn = [scattered(made, sizes_between(made, 0.3, 0.7, 5), rng=np.random.default_rng(0)) for made in (narrow, wide)]
    assert (columns[drawn[0]] == drawn[1]).all()
