import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.devices import Timed, fit_latency

FORMATS = ("A", "B", "C")


def seconds(read: dict[str, int]) -> float:
    return sum(rate * read.get(form, 0) for form, rate in zip(FORMATS, (1e-10, 3e-10, 2e-9), strict=True)) + 1e-4


def test_rates_are_found_again() -> None:
    timed = [Timed({form: 10**7 * depth}, seconds({form: 10**7 * depth})) for form in FORMATS for depth in (4, 8)]
    found = fit_latency(timed)
    assert found.relative_error < 1e-6
    mixed = {"A": 10**6, "C": 3 * 10**7}
    assert found.seconds_per_token(mixed) == pytest.approx(seconds(mixed), rel=1e-4)
    with pytest.raises(KeyError):
        found.seconds_per_token({"D": 1})


@given(st.lists(st.floats(0.8, 1.25), min_size=6, max_size=6))
def test_noise_makes_no_rate_negative(noise: list[float]) -> None:
    cases = [(form, depth) for form in FORMATS for depth in (4, 8)]
    timed = [Timed({form: 10**7 * d}, factor * seconds({form: 10**7 * d})) for (form, d), factor in zip(cases, noise, strict=True)]
    found = fit_latency(timed)
    assert min(*found.seconds_per_byte.values(), found.seconds_per_step) >= 0
    assert found.relative_error <= 0.3
    assert np.isfinite(found.seconds_per_token({"B": 10**7}))
