"""Methods that allocate sparsity, against their papers' rules written out in numpy, on spaces of masks and bits."""

import numpy as np
import pytest

from bitwright.methods.by_name import method_named
from tests.methods.golden import Given, between, dense, every

MASKS = ("BF16_S25", "BF16_S50", "BF16_S75", "INT4_S50", "INT3_G64", "INT4_G64")
SPACE = dense({0: (8, 16), 1: (24, 8), 2: (8, 40)}, menu=MASKS)
LEVELS = dense(dict.fromkeys(range(8), (8, 8, 8, 8)), menu=MASKS[:3])


def table(_: str) -> np.ndarray:
    """Losses that fall with bits at different rates, but not in the same order for all matrices."""
    rng = np.random.default_rng(5)
    losses = np.exp(rng.normal(size=(len(SPACE.units), 1))) * 2.0 ** -np.array([form.bits_per_weight for form in SPACE.formats])
    return losses * rng.uniform(0.7, 1.4, losses.shape)


def first_steps(budget_bits: int) -> list[int]:
    """The one ranking, a heap written as a loop: the cheapest next step per bit, among a matrix's formats that are better than all smaller ones."""
    sizes, losses, stairs = SPACE.size_bits, table(""), []
    for unit, row in enumerate(SPACE.offered):
        stair: list[int] = []
        for f in sorted(np.flatnonzero(row), key=lambda f: (sizes[unit, f], losses[unit, f])):
            if not stair or losses[unit, f] < losses[unit, stair[-1]]:
                stair.append(int(f))
        stairs.append(stair)
    while sum(sizes[u, stair[-1]] for u, stair in enumerate(stairs)) + SPACE.fixed_bits > budget_bits:
        prices = {
            u: (losses[u, stair[-2]] - losses[u, stair[-1]]) / (sizes[u, stair[-1]] - sizes[u, stair[-2]])
            for u, stair in enumerate(stairs)
            if len(stair) > 1
        }
        stairs[min(prices, key=lambda u: prices[u])].pop()
    return [stair[-1] for stair in stairs]


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.9])
def test_acip_takes_the_first_steps_of_one_ranking(share: float) -> None:
    given, budget = Given(SPACE, table), between(SPACE, share)
    assert given.answer("acip", budget).tolist() == first_steps(budget)
    assert given.asked == ["gradient"]


def test_acips_smaller_models_are_within_its_larger_ones() -> None:
    units = np.arange(len(SPACE.units))
    plans = [Given(SPACE, table).answer("acip", between(SPACE, share)) for share in (0.2, 0.4, 0.6, 0.8)]
    sizes = np.array([SPACE.size_bits[units, plan] for plan in plans])
    assert (np.diff(sizes, axis=0) >= 0).all()
    assert (np.diff(sizes.sum(axis=1)) > 0).all()


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_pq_index_prunes_in_proportion_to_the_index(share: float) -> None:
    index = np.array([0.1, 0.4, 0.2, 0.3, 0.25, 0.15])
    space = dense({0: (8, 16), 1: (24, 8), 2: (8, 40)}, menu=MASKS[:3])
    given, budget, units = Given(space, scores=lambda *_: -index), between(space, share), np.arange(6)
    weights = np.array([unit.n_weights for unit in space.units])
    largest, smallest = (space.size_bits[units, choice] for choice in (space.largest(), space.smallest()))
    scales = np.linspace(0, 200, 400_001)
    left = np.maximum(largest - np.outer(scales, index * weights), smallest)
    wanted = left[np.flatnonzero(left.sum(axis=1) <= budget - space.fixed_bits)[0]]
    found = given.answer("pq-index", budget)
    step = np.array([np.diff(np.sort(space.size_bits[unit][space.offered[unit]])).max() for unit in units])
    assert (np.abs(space.size_bits[units, found] - wanted) <= step).all()
    assert space.total_bits(found) <= budget
    assert given.asked == ["pq-index"]


def test_evopress_for_sparsity_selects_64_offspring_of_equal_size_in_three_stages() -> None:
    given = Given(LEVELS, true=lambda choice: float((choice * np.arange(1, 33)).sum()), n_sequences=1_000)
    found = given.questions(method_named("evopress-sparsity"), between(LEVELS, 0.25), n=6)
    assert [len(question.choices) for question in found] == [16, 1, 64, 8, 2, 64]
    assert [question.n_sequences for question in found[:5]] == [2_048 // 256, 65_536 // 256, 2_048 // 256, 16_384 // 256, 65_536 // 256]
    assert (LEVELS.total_bits(found[2].choices) == LEVELS.total_bits(found[1].choices[0])).all(), "averages stay exact"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_obcs_programme_takes_pruned_and_quantized_levels_alike(share: float) -> None:
    given, budget, units = Given(SPACE, table), between(SPACE, share), np.arange(len(SPACE.units))
    room = budget - int(SPACE.total_bits(SPACE.smallest()))
    part = max(room // 10_000, 1)
    extra = SPACE.size_bits - SPACE.size_bits[units, SPACE.smallest()][:, None]
    choices, losses = every(SPACE), table("")
    fits = (-(-extra[units, choices] // part)).sum(axis=1) <= min(room // part, 10_000)
    found = given.answer("obc-dp", budget)
    assert losses[units, found].sum() == pytest.approx(losses[units, choices[fits]].sum(axis=1).min(), rel=1e-12)
    assert given.asked == ["surgeon"]


def test_spdys_coefficients_reweigh_masks_and_bits_alike() -> None:
    given, budget, units = Given(SPACE, table, true=lambda choice: float(choice.sum())), between(SPACE, 0.4), np.arange(len(SPACE.units))
    first = given.questions(method_named("spdy"), budget, n=1)[0].choices
    choices = every(SPACE)
    fitting = choices[SPACE.total_bits(choices) <= budget]
    for coefficients in np.concatenate([np.ones((1, len(units))), np.random.default_rng(3).uniform(size=(3, len(units)))]):
        losses = (table("") * coefficients[:, None])[units, fitting].sum(axis=1)
        best = fitting[np.isclose(losses, losses.min(), rtol=1e-12)]
        assert any((choice == first).all(axis=1).any() for choice in best)
    chosen = {SPACE.formats[f].name for f in first.reshape(-1)}
    assert any("_S" in name for name in chosen)
    assert any("_G" in name for name in chosen)
    assert given.asked == ["surgeon"]


@pytest.mark.parametrize("bits", [2.8, 2.99, 3.7, 4.6])
def test_codes_alone_from_three_bits_on_and_everything_below(bits: float) -> None:
    space = dense({0: (8, 16), 1: (24, 8)}, menu=("INT4_S50", "INT3_G64", "INT4_G64", "INT2_G64"))
    by_format = [2.0**-form.bits_per_weight / (100 if form.reduction else 1) for form in space.formats]
    losses = np.exp(np.random.default_rng(5).normal(size=(len(space.units), 1))) * by_format
    given, units = Given(space, lambda _: losses), np.arange(len(space.units))
    budget = space.fixed_bits + int(bits * sum(unit.n_weights for unit in space.units))
    fits = np.array([c for c in every(space) if space.total_bits(c) <= budget and (bits < 3 or not any(space.formats[f].reduction for f in c))])
    found = given.answer("quantize-first", budget)
    assert losses[units, found].sum() == pytest.approx(losses[units, fits].sum(axis=1).min(), rel=1e-12)
    assert any(space.formats[f].reduction for f in found) == (bits < 3)
    assert given.asked == ["gradient"]
