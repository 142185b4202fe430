"""Pairs that good choices may have, against every choice of small spaces."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitwright.search import solve, within_reach
from bitwright.spaces import Space
from tests.search.instances import Table, budgets, every_choice, instances, language_model, losses, thorough


@given(instances(), st.floats(0.0, 1.0), st.floats(0.0, 2.0))
@thorough
def test_every_choice_that_is_good_enough_has_such_pairs_alone(instance: tuple[Space, Table], share: float, above: float) -> None:
    space, table = instance
    budget_bits = budgets(space, share)
    at_most = solve(space, table, budget_bits).loss + above
    found = within_reach(space, table, budget_bits, loss_at_most=at_most + 1e-9)
    choices = every_choice(space)
    good = choices[(space.total_bits(choices) <= budget_bits) & (losses(table, choices) <= at_most)]
    assert len(good)
    assert all(found[np.arange(len(choice)), choice].all() for choice in good)
    assert not (found & ~space.offered).any()


def test_of_a_language_model_most_pairs_are_out_of_reach() -> None:
    space, table = language_model(0, shape_aware=False)
    budget_bits = int(4.6 * space.n_weights)
    best = solve(space, table, budget_bits)
    found = within_reach(space, table, budget_bits, loss_at_most=best.loss)
    assert found[np.arange(len(space.units)), best.choice].all()
    assert found.sum() < 0.5 * space.offered.sum()
