import numpy as np
import pytest
import scipy
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from bitwright.objectives import TokenObjective
from bitwright.objectives.metrics.rank_correlation import Kendall, Spearman
from bitwright.testing.objective_contract import IDS, DistanceContract, by_sequence, distributions, near

BOTH = pytest.mark.parametrize("objective", [Kendall(4), Spearman(4)], ids=["kendall", "spearman"])


class TestKendall(DistanceContract):
    def objective(self) -> TokenObjective:
        return Kendall(5)


class TestSpearman(DistanceContract):
    def objective(self) -> TokenObjective:
        return Spearman(5)


@pytest.mark.slow
@given(st.integers(0, 2**31), st.integers(2, 40), st.floats(0.01, 5))
def test_is_one_minus_scipy_s_correlation_over_the_original_s_head(seed: int, k: int, distance: float) -> None:
    p = distributions(seed)[:2]
    q = near(p, seed + 1, distance)
    heads = p.topk(k, dim=-1)
    after = q.gather(-1, heads.indices)
    assume(all((values.sort(dim=-1).values.diff(dim=-1) > 0).all() for values in (heads.values, after)))  # of ties scipy thinks otherwise
    found = {objective: by_sequence(objective, p, q, IDS[:2]) for objective in (Kendall(k), Spearman(k))}
    for objective, correlation in zip(found, (scipy.stats.kendalltau, scipy.stats.spearmanr), strict=True):
        expected = [np.mean([1 - correlation(heads.values[i, t], after[i, t]).statistic for t in range(8)]) for i in range(2)]
        np.testing.assert_allclose(found[objective], expected, atol=1e-5)


@BOTH
def test_the_reverse_is_two(objective: TokenObjective) -> None:
    p = torch.tensor([[[-1.0, -2.0, -3.0, -4.0, -50.0]]])
    q = torch.tensor([[[-4.0, -3.0, -2.0, -1.0, 0.0]]])
    assert by_sequence(objective, p, q, IDS[:1, :1]).tolist() == pytest.approx([2])


@BOTH
def test_a_tie_of_one_takes_the_order_of_the_other(objective: TokenObjective) -> None:
    tied = torch.tensor([[[-1.0, -2.0, -2.0, -4.0, -50.0]]])
    one_way = torch.tensor([[[-1.0, -2.0, -3.0, -4.0, -50.0]]])
    other_way = torch.tensor([[[-1.0, -3.0, -2.0, -4.0, -50.0]]])
    for p, q in ((tied, one_way), (tied, other_way), (one_way, tied), (tied, tied)):
        assert by_sequence(objective, p, q, IDS[:1, :1]).tolist() == [0]
    assert by_sequence(objective, one_way, other_way, IDS[:1, :1])[0] > 0


def test_more_tokens_than_there_are_is_all_of_them() -> None:
    p = distributions(0)
    q = near(p, 1)
    assert by_sequence(Kendall(60), p, q, IDS).tolist() == by_sequence(Kendall(40), p, q, IDS).tolist()


@pytest.mark.parametrize("kind", [Kendall, Spearman])
def test_an_order_needs_two(kind: type) -> None:
    with pytest.raises(ValueError, match="two tokens"):
        kind(1)
