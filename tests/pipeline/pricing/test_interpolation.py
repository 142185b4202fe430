from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitwright.objectives import Store
from bitwright.pipeline import Run
from bitwright.pipeline.pricing.interpolation import FrontInterpolator, fit_interpolator
from bitwright.search import hull
from tests.measuring import put_quality


@pytest.mark.slow
def test_a_measured_choice_on_the_front_is_foretold_as_it_was_measured(searched: Run) -> None:
    interpolator = fit_interpolator(searched)
    front = hull(searched.space, searched.table)
    measured = searched.measurements
    known = [measured[key] for choice in front.choices if (key := tuple(choice.tolist())) in measured]
    assert known
    for measurement in known:
        found = interpolator(searched.summed(np.array(measurement.choice)))
        assert found.nats_per_token == pytest.approx(measurement.nats_per_token, rel=0.5)
        assert 0 < found.standard_error < found.nats_per_token


def test_between_two_it_is_interpolated_in_the_logarithm() -> None:
    interpolator = FrontInterpolator(np.log([1.0, 100.0]), np.log([2.0, 8.0]), 0.1)
    assert interpolator(10.0).nats_per_token == pytest.approx(10 * 4.0)
    assert interpolator(10.0).standard_error == pytest.approx(4.0)
    assert interpolator(1000.0).nats_per_token == pytest.approx(8000.0)  # beyond the last the last factor holds
    assert interpolator(0.0).nats_per_token == 0.0


@pytest.mark.slow
def test_a_run_of_few_measurements_has_one_factor(searched: Run, tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite")
    bare = replace(searched, store=store)
    assert fit_interpolator(bare)(3.0).nats_per_token == pytest.approx(3.0)
    choice = searched.space.smallest()
    nats = 5 * searched.summed(choice)
    put_quality(store, choice, (nats, nats))
    assert fit_interpolator(bare)(3.0).nats_per_token == pytest.approx(15.0)
