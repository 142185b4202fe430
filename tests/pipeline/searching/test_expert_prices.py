"""Prices of experts that are taken away: a sieve, then what was measured."""

from collections.abc import Sequence

import numpy as np
import pytest

from bitwright.pipeline.searching.expert_prices import expert_prices
from bitwright.pipeline.searching.structured_options import expert_numbers


@pytest.mark.parametrize(
    ("n", "used", "numbers"), [(4, 2, [4, 3, 2]), (4, 3, [4, 3]), (8, 2, [8, 7, 6, 5, 4]), (128, 8, [128, 112, 96, 80, 64]), (2, 2, [2])]
)
def test_half_of_the_experts_stay_or_as_many_as_a_token_is_sent_to(n: int, used: int, numbers: list[int]) -> None:
    assert expert_numbers(n, used) == numbers


def test_of_those_that_the_sieve_lets_through_the_cheapest_to_drop_go_first() -> None:
    saliency = np.arange(10.0)[::-1]  # the sieve lets the last eight through
    costs, asked = np.array([0.0, 0.0, 5, 1, 7, 2, 8, 3, 6, 4]), list[tuple[int, ...]]()

    def measured(kept: Sequence[int]) -> float:
        asked.append(tuple(kept))
        return float(costs.sum() - costs[list(kept)].sum())

    found = expert_prices(saliency, [8, 6], measured)
    assert found.by_worth == (0, 1, 6, 4, 8, 2, 9, 7, 5, 3)
    assert found.nats == {8: 3.0, 6: 10.0}
    assert len(asked) == 8 + 2
    assert all(list(kept) == sorted(kept) for kept in asked)
