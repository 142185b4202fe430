import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr

from bitwright.objectives import KullbackLeibler, TokenObjective
from bitwright.objectives.metrics.kullback_leibler import TopKullbackLeibler
from bitwright.testing.objective_contract import IDS, DistanceContract, by_sequence, distributions, near

SEEDS = st.integers(0, 2**31)
SCALES = st.floats(0.01, 20)


class TestKullbackLeibler(DistanceContract):
    def objective(self) -> TokenObjective:
        return KullbackLeibler()


class TestTopKullbackLeibler(DistanceContract):
    def objective(self) -> TokenObjective:
        return TopKullbackLeibler(5)


@given(SEEDS, SCALES)
def test_is_the_sum_over_the_vocabulary(seed: int, scale: float) -> None:
    p, q = distributions(seed, scale=scale), distributions(seed + 1, scale=scale)
    expected = rel_entr(p.double().exp().numpy(), q.double().exp().numpy()).sum(axis=-1).mean(axis=-1)
    np.testing.assert_allclose(by_sequence(KullbackLeibler(), p, q, IDS), expected, rtol=1e-4, atol=1e-6)


@given(SEEDS, SCALES, st.floats(0, 5), st.integers(1, 39))
def test_the_head_and_a_bucket_are_a_lower_bound_that_grows_with_the_head(seed: int, scale: float, distance: float, k: int) -> None:
    p = distributions(seed, scale=scale)
    q = near(p, seed + 1, distance)
    head, longer, whole = (by_sequence(objective, p, q, IDS) for objective in (TopKullbackLeibler(k), TopKullbackLeibler(k + 1), KullbackLeibler()))
    slack = 1e-6 + 1e-5 * np.abs(whole)
    assert (head >= -slack).all()
    assert (head <= longer + slack).all()
    assert (longer <= whole + slack).all()


@pytest.mark.parametrize("k", [40, 41])
def test_the_head_of_all_tokens_is_the_whole(k: int) -> None:
    p = distributions(0)
    q = near(p, 1)
    assert by_sequence(TopKullbackLeibler(k), p, q, IDS).tolist() == by_sequence(KullbackLeibler(), p, q, IDS).tolist()


def test_all_others_are_one_bucket() -> None:
    p = np.log([0.5, 0.3, 0.1, 0.1])
    q = np.log([0.2, 0.3, 0.4, 0.1])
    found = by_sequence(TopKullbackLeibler(2), torch.tensor(p)[None, None], torch.tensor(q)[None, None], IDS[:1, :1])
    assert found[0] == pytest.approx(0.5 * np.log(0.5 / 0.2) + 0.2 * np.log(0.2 / 0.5))


def test_a_head_has_a_token() -> None:
    with pytest.raises(ValueError, match="one token at least"):
        TopKullbackLeibler(0)
