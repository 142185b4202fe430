from math import log

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from bitwright.objectives import ClampedJensenShannon, TokenObjective
from bitwright.objectives.metrics.jensen_shannon import JensenShannon
from bitwright.testing.objective_contract import IDS, DistanceContract, by_sequence, distributions

SEEDS = st.integers(0, 2**31)
SCALES = st.floats(0.01, 50)


class TestJensenShannon(DistanceContract):
    def objective(self) -> TokenObjective:
        return JensenShannon()


class TestClampedJensenShannon(DistanceContract):
    def objective(self) -> TokenObjective:
        return ClampedJensenShannon()


@given(SEEDS, SCALES)
def test_is_symmetric_and_at_most_ln_2(seed: int, scale: float) -> None:
    p, q = distributions(seed, scale=scale), distributions(seed + 1, scale=scale)
    found = by_sequence(JensenShannon(), p, q, IDS)
    assert found.tolist() == by_sequence(JensenShannon(), q, p, IDS).tolist()
    assert (found >= -1e-6).all()
    assert (found <= log(2) + 1e-6).all()
    np.testing.assert_allclose(by_sequence(JensenShannon(), p, p, IDS), 0, atol=1e-6)


@given(SEEDS, SCALES)
def test_is_the_square_of_scipy_s_distance(seed: int, scale: float) -> None:
    p, q = distributions(seed, scale=scale), distributions(seed + 1, scale=scale)
    expected = jensenshannon(p.double().exp().numpy(), q.double().exp().numpy(), axis=-1) ** 2
    np.testing.assert_allclose(by_sequence(JensenShannon(), p, q, IDS), expected.mean(axis=-1), rtol=1e-4, atol=1e-6)


def test_nothing_in_common_is_ln_2() -> None:
    p = torch.tensor([[[0.0, -200.0]]])
    assert by_sequence(JensenShannon(), p, p.flip(-1), IDS[:1, :1])[0] == pytest.approx(log(2))


# --- as AMQ computes it


def test_the_mixture_is_at_least_1e_7() -> None:
    p = torch.tensor([[[1 - 3e-9, 1e-9, 2e-9]]], dtype=torch.float64).log()
    found = by_sequence(ClampedJensenShannon(), p, p, IDS[:1, :1])[0]
    assert found == pytest.approx(1e-9 * log(1e-9 / 1e-7) + 2e-9 * log(2e-9 / 1e-7), rel=1e-5)
    assert found < 0


def test_away_from_the_clamp_it_is_the_divergence() -> None:
    p, q = distributions(0, scale=1), distributions(1, scale=1)
    np.testing.assert_allclose(by_sequence(ClampedJensenShannon(), p, q, IDS), by_sequence(JensenShannon(), p, q, IDS), rtol=1e-5)


def test_undefined_values_count_as_one() -> None:
    p = distributions(0)
    q = p.clone()
    q[3, 2, 5] = torch.nan
    found = by_sequence(ClampedJensenShannon(), p, q, IDS)
    assert found[3] == 1
    assert (np.delete(found, 3) < 0.01).all()
