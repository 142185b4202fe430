"""The link from sums of prices to divergences: through what was measured, monotone, with the factor of the ends beyond them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.objectives import Store
from bitwright.pipeline import Run
from bitwright.pipeline.pricing.link import Link, fit_link, link_of
from bitwright.search import hull
from tests.measuring import put_quality

_ABOVE_ZERO = st.floats(1e-6, 10.0)


@pytest.mark.slow
def test_a_measured_choice_on_the_front_is_foretold_as_it_was_measured(searched: Run) -> None:
    link = link_of(searched)
    front = hull(searched.space, searched.table)
    measured = searched.measurements
    known = [measured[key] for choice in front.choices if (key := tuple(choice.tolist())) in measured]
    assert known
    for measurement in known:
        found = link(searched.summed(np.array(measurement.choice)))
        assert found.nats_per_token == pytest.approx(measurement.nats_per_token, rel=0.5)
        assert 0 < found.standard_error < found.nats_per_token


def test_two_measured_plans_are_foretold_and_what_lies_between_in_the_logarithm() -> None:
    link = fit_link([100.0, 1.0], [800.0, 2.0], noise=0.0, otherwise=0.1)
    assert link.nats(np.array([1.0, 10.0, 100.0])) == pytest.approx([2.0, 40.0, 800.0])
    assert link(10.0).standard_error == pytest.approx(4.0)
    assert link.nats(np.array([0.1, 1000.0])) == pytest.approx([0.2, 8000.0])  # beyond the ends their factors hold
    assert link(0.0).nats_per_token == 0.0


def test_the_error_is_that_of_leaving_one_out_and_of_the_measurements() -> None:
    link = fit_link([1.0, 10.0, 100.0], [1.0, 10 * np.exp(0.3), 100.0], noise=0.4, otherwise=9.0)
    assert link.relative_error == pytest.approx(0.5)


@given(st.lists(st.tuples(_ABOVE_ZERO, _ABOVE_ZERO), min_size=2, max_size=8), st.lists(_ABOVE_ZERO, min_size=2, max_size=8))
def test_a_larger_sum_has_no_smaller_divergence(known: list[tuple[float, float]], asked: list[float]) -> None:
    sums, nats = zip(*known, strict=True)
    linked = fit_link(sums, nats, noise=0.1, otherwise=0.1).nats(np.sort(asked))
    assert np.isfinite(linked).all()
    assert (np.diff(linked) >= -1e-9 * linked[:-1]).all()


def test_what_is_measured_in_order_is_foretold_as_measured() -> None:
    sums, nats = [0.1, 0.5, 2.0, 4.0], [0.2, 1.5, 4.5, 6.0]
    assert fit_link(sums, nats, noise=0.1, otherwise=0.1).nats(np.array(sums)) == pytest.approx(nats)


@pytest.mark.slow
def test_a_run_of_few_measurements_has_one_factor(searched: Run, tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite")
    bare = replace(searched, store=store)
    assert link_of(bare)(3.0).nats_per_token == pytest.approx(3.0)
    choice = searched.space.smallest()
    nats = 5 * searched.summed(choice)
    put_quality(store, choice, (nats, nats))
    assert isinstance(link_of(bare), Link)
    assert link_of(bare)(3.0).nats_per_token == pytest.approx(15.0)
