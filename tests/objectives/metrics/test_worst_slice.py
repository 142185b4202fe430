import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.objectives import KullbackLeibler, TokenObjective
from bitwright.objectives.metrics.worst_slice import WorstSlice
from bitwright.testing.objective_contract import IDS, DistanceContract, by_sequence, distributions, near


class TestWorstSlice(DistanceContract):
    tolerance = 0.15

    def objective(self) -> TokenObjective:
        return WorstSlice(25)


@pytest.mark.parametrize(("percent", "expected"), [(0.1, 40), (2.5, 40), (5, 39.5), (6, 39), (10, 38.5), (50, 30.5), (100, 20.5)])
def test_is_the_mean_of_the_worst_rounded_up(percent: float, expected: float) -> None:
    values = np.random.default_rng(0).permutation(np.arange(1.0, 41.0))
    assert WorstSlice(percent).summarise(values).value == expected


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0.1, 100))
def test_lies_between_the_mean_and_the_worst(values: list[float], percent: float) -> None:
    found = WorstSlice(percent).summarise(np.array(values)).value
    assert np.mean(values) - 1e-9 <= found <= max(values) + 1e-9


def test_values_are_the_divergence_of_every_sequence() -> None:
    p = distributions(0)
    q = near(p, 1)
    assert by_sequence(WorstSlice(5), p, q, IDS).tolist() == by_sequence(KullbackLeibler(), p, q, IDS).tolist()


@pytest.mark.slow
def test_the_smallest_slice_is_rough_but_not_wild() -> None:
    samples = np.random.default_rng(2).lognormal(sigma=0.4, size=(400, 128))
    found = [WorstSlice(5).summarise(sample) for sample in samples]
    deviation = np.std([estimate.value for estimate in found], ddof=1)
    assert 0.65 * deviation < np.mean([estimate.standard_error for estimate in found]) < 1.1 * deviation


@pytest.mark.parametrize("percent", [0, -5, 101])
def test_a_slice_is_a_share(percent: float) -> None:
    with pytest.raises(ValueError, match="per cent"):
        WorstSlice(percent)
