"""Methods that measure plans, against their papers' rules written out in numpy."""

import numpy as np
import pytest

from bitwright.methods.by_name import method_named
from bitwright.spaces import Choice, by_layer, tied
from tests.methods.golden import Given, between, bits_of, dense, every

SPACE = dense({0: (8, 8), 1: (8, 8), 2: (8, 8)})
COSTS = np.array([5.0, 1.0, 3.0, 2.0, 8.0, 1.0])


def additive(choice: Choice) -> float:
    """Errors that fall by four with each bit."""
    return float((COSTS * 4.0 ** -np.array(bits_of(SPACE, choice))).sum())


def test_amq_pins_what_costs_twice_the_median_and_draws_its_design_around_the_mean_format() -> None:
    space, costs = dense(dict.fromkeys(range(4), (8, 8))), np.array([5.0, 1.0, 3.0, 2.0, 40.0, 1.0, 2.0, 3.0])
    given = Given(space, true=lambda choice: float((costs * 4.0 ** -np.array(bits_of(space, choice))).sum()))
    drops = [given.true(np.where(np.arange(8) == unit, space.smallest(), space.largest())) for unit in range(8)]
    pinned = np.array(drops) > 2.0 * np.median(drops)
    assert 0 < pinned.sum() < 8
    first, second = given.questions(method_named("amq"), between(space, 0.5), n=2)
    assert (first.choices[:, pinned] == space.largest()[pinned]).all()
    assert len(first.choices) == 250 == len(np.unique(first.choices, axis=0))
    for form in {space.formats[f] for choice in first.choices for f in choice}:
        assert (first.choices == np.where(pinned, space.largest(), space.uniform(form))).all(axis=1).any()
    assert 0 < len(second.choices) <= 50
    assert given.asked == ["rbf"]


def test_evopress_starts_at_the_budget_and_selects_128_offspring_in_three_stages() -> None:
    space = dense(dict.fromkeys(range(8), (8, 8, 8, 8)))
    budget = between(space, 0.25)
    given = Given(space, true=lambda choice: float((choice * np.arange(1, 33)).sum()), n_sequences=1_000)
    found = given.questions(method_named("evopress"), budget, n=6)
    assert [len(question.choices) for question in found] == [16, 1, 128, 16, 4, 128]
    assert [question.n_sequences for question in found[:5]] == [2_048 // 256, 131_072 // 256, 2_048 // 256, 16_384 // 256, 131_072 // 256]
    step = np.diff(np.sort(space.size_bits[0][space.offered[0]])).max()
    drawn = found[0].choices
    assert (budget - step < space.total_bits(drawn)).all()
    assert (space.total_bits(drawn) <= budget).all()
    assert all(set(bits_of(space, choice)) == {2, 3} for choice in drawn), "from the uniform allocation above, a level down"
    values = np.array([given.true(choice) for choice in drawn])
    assert found[1].choices.tolist() == [drawn[values.argmin()].tolist()]
    parent, offspring = found[1].choices[0], found[2].choices
    assert (space.total_bits(offspring) == space.total_bits(parent)).all(), "units of one size trade level for level"
    assert max(int((child != parent).sum()) for child in offspring) <= 6, "at most three up and as many down"
    best = sorted(offspring.tolist(), key=lambda child: given.true(np.array(child)))
    assert sorted(found[3].choices.tolist()) == sorted(best[:16])
    assert found[4].against.tolist() == [parent.tolist()]


@pytest.mark.slow
def test_qpruner_begins_with_the_layers_of_most_information_and_goes_on_with_layers_in_two_formats() -> None:
    space = dense(dict.fromkeys(range(6), (8, 8)))
    information, budget = np.array([0.1, 0.9, 0.5, 0.7, 0.2, 0.3]), between(space, 0.25)  # halfway from two bits to three
    given = Given(space, scores=lambda _, coarse: information[[unit.layer for unit in coarse.units]], true=lambda c: float(np.sum(bits_of(space, c))))
    found = given.questions(method_named("qpruner"), budget, n=14)
    tie, asked = tied(space, by_layer), np.concatenate([question.choices for question in found])
    assert [bits_of(space, found[0].choices[0])[2 * layer] for layer in range(6)] == [2, 3, 3, 3, 2, 2]
    assert tie.keeps(asked).all()
    assert {bit for choice in asked for bit in bits_of(space, choice)} == {2, 3}
    assert (space.total_bits(asked) <= budget).all()
    assert len(np.unique(asked, axis=0)) == len(asked) > 10
    assert given.asked == ["information", "gp-bits"] or given.asked == ["gp-bits", "information"]


def test_spdy_solves_its_table_times_coefficients_and_draws_a_tenth_of_the_best_anew() -> None:
    rng = np.random.default_rng(9)
    table = np.exp(rng.normal(size=(6, 1))) * 4.0 ** -np.array([form.bits_per_weight for form in SPACE.formats])
    given, budget, units = Given(SPACE, lambda _: table, true=additive), between(SPACE, 0.5), np.arange(6)
    first, *later = given.questions(method_named("spdy"), budget, n=5)
    fitting = np.array([choice for choice in every(SPACE) if SPACE.total_bits(choice) <= budget])
    drawn = np.concatenate([np.ones((1, 6)), np.random.default_rng(3).uniform(size=(100, 6))])
    for coefficients in drawn:
        losses = (table * coefficients[:, None])[units, fitting].sum(axis=1)
        best = fitting[np.isclose(losses, losses.min(), rtol=1e-12)]
        assert any((choice == first.choices).all(axis=1).any() for choice in best)
    assert len(first.choices) <= 101
    assert not (first.choices == SPACE.smallest()).all(axis=1).any(), "uniform allocations are not what it starts from"
    assert all(len(question.choices) == 1 for question in later)
    assert given.asked == ["surgeon"]


@pytest.mark.parametrize("share", [0.15, 0.35])
def test_coopq_is_a_quadratic_programme_of_shapley_values_and_their_covariance(share: float) -> None:
    matrix = np.random.default_rng(2).normal(size=(6, 6))

    def true(choice: Choice) -> float:
        low = (np.array(bits_of(SPACE, choice)) == 2).astype(float)
        return float(COSTS @ low + 0.3 * low @ (matrix @ matrix.T) @ low)

    given, budget = Given(SPACE, true=true), between(SPACE, share)
    index = {form.name: f for f, form in enumerate(SPACE.formats)}
    high, low = index["INT3_ROW"], index["INT2_ROW"]
    marginals = []
    for order in np.random.default_rng(3).permuted(np.tile(np.arange(6), (8, 1)), axis=1):
        choice, row = np.full(6, high), np.zeros(6)
        for unit in order:
            before = true(choice)
            choice[unit] = low
            row[unit] = true(choice) - before
        marginals.append(row)
    phi, covariance = np.mean(marginals, axis=0), np.cov(np.array(marginals).T)
    k = 0.5 * covariance + 0.5 * np.diag(np.diag(covariance))
    a = phi - (k.sum(axis=1) - np.diag(k))
    choices = [c for c in every(SPACE) if set(c) <= {high, low} and SPACE.total_bits(c) <= budget]
    best = min(choices, key=lambda c: a @ (c == low) + (c == low) @ k @ (c == low))
    assert given.answer("coopq", budget).tolist() == best.tolist()


@pytest.mark.slow
def test_automixq_samples_configurations_and_learns_a_light_model_of_them() -> None:
    space = dense(dict.fromkeys(range(4), (8, 24, 40)))
    given = Given(space, true=lambda choice: float((4.0 ** -np.array(bits_of(space, choice))).sum()))
    first, second = given.questions(method_named("automixq"), between(space, 0.5), n=2)
    assert len(first.choices) == 60
    assert len(second.choices) <= 10
    spread = space.total_bits(second.choices)
    assert len(np.unique(spread)) == len(spread), "picks lie along the front"
    assert given.asked == ["mlp"]
