"""The default search: the table's optimum first, the slopes where they are known, and then what measurements teach."""

from bisect import bisect_left
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bitwright.errors import BudgetError, UserError
from bitwright.search import Predict, Problem, Row, Strategy, Trials, auto, auto_front, hypervolume, solve, solve_with_rows
from bitwright.spaces import Choice, Choices, Space
from bitwright.testing.strategy_contract import LARGE, WIDER, Landscape, choices_of, exactly, searched
from tests.search.instances import space_of
from tests.search.learners import ridge

pytestmark = pytest.mark.slow

N_UNITS = 10


def problem(space: Space, *start: Choice, seed: int = 0) -> Problem:
    return Problem(space, np.array(start, dtype=np.int64).reshape(-1, N_UNITS), n_sequences=64, seed=seed)


@pytest.fixture(scope="module")
def space() -> Space:
    rng = np.random.default_rng(3)
    weights = rng.integers(8, 40, N_UNITS)
    return space_of([[int(n * bits) for bits in (6, 4, 3, 2)] for n in weights], [[True] * 4] * N_UNITS)


class World:
    """Divergence = table + interactions of neighbouring units: what a table alone cannot know."""

    def __init__(self, space: Space, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.space = space
        self.roots = np.exp(rng.normal(0, 0.7, (N_UNITS, 1))) * np.array([0.05, 0.2, 0.4, 0.8]) * rng.choice([-1, 1], (N_UNITS, 1))
        mixing = np.eye(N_UNITS) + 0.5 * np.diag(np.ones(N_UNITS - 1), 1) + 0.4 * np.diag(np.ones(N_UNITS - 2), 2)
        self.curvature = mixing @ mixing.T

    @property
    def table(self) -> NDArray[np.float64]:
        """Return the divergence of each unit alone."""
        return np.diag(self.curvature)[:, None] * self.roots**2 / 2

    def __call__(self, choice: Choice) -> float:
        roots = self.roots[np.arange(N_UNITS), choice]
        return float(roots @ self.curvature @ roots) / 2

    def expand(self, choice: Choice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        roots = self.roots[np.arange(N_UNITS), choice]
        change = self.roots - roots[:, None]
        return (self.curvature @ roots)[:, None] * change, np.diag(self.curvature)[:, None] * change**2 / 2

    def refit(self, choices: Choices, values: NDArray[np.float64], errors: NDArray[np.float64]) -> Predict:
        """The table, shifted to the mean of what was measured."""
        summed = lambda those: self.table[np.arange(N_UNITS), those].sum(axis=-1)  # noqa: E731
        factor = float(np.mean(values) / np.mean(summed(choices)))
        return lambda those: (factor * summed(those), 0.3 * factor * summed(those))


def run(strategy: Strategy, world: World, n: int, *, error: float = 1e-4) -> Trials:
    """Return all trials of at most `n` evaluations."""
    found: list[Trials] = []
    while n > 0 and not (question := strategy.ask()).is_last:
        choices = question.choices[:n]
        values = np.array([[world(choice)] for choice in choices])
        raced = np.full(len(choices), error if len(question.against) else np.nan)
        found.append(Trials(choices, values, np.full_like(values, error), np.full(len(choices), question.n_sequences), raced))
        strategy.tell(found[-1])
        n -= len(choices) if question.n_sequences == 64 else 0  # a glance at a part of the text counts once
    everything = found[0]
    for trials in found[1:]:
        everything = everything.joined(trials)
    return everything


def best_of_all(world: World, budget_bits: int) -> float:
    """Return the best of all 4 ** 10 choices by brute force."""
    choices = np.stack(np.meshgrid(*[np.arange(4)] * N_UNITS, indexing="ij"), axis=-1).reshape(-1, N_UNITS)
    choices = choices[world.space.total_bits(choices) <= budget_bits]
    roots = world.roots[np.arange(N_UNITS), choices]
    return float(((roots @ world.curvature) * roots).sum(axis=1).min()) / 2


def budget(space: Space) -> int:
    return int(0.55 * space.total_bits(np.zeros(N_UNITS, dtype=np.int64)))


def test_the_first_question_is_the_tables_optimum_and_what_was_given(space: Space) -> None:
    world = World(space, 0)
    optimum, given, too_large = solve(space, world.table, budget(space)).choice, np.full(N_UNITS, 3), np.zeros(N_UNITS, dtype=np.int64)
    asked = auto(problem(space, given, too_large, optimum), budget(space), tables=(world.table,), refit=world.refit).ask()
    assert asked.choices.tolist() == [optimum.tolist(), given.tolist()]
    assert asked.n_sequences == 8


@pytest.fixture(scope="module")
def bests(space: Space) -> list[float]:
    """Return the least divergence within the budget in each of five worlds."""
    return [best_of_all(World(space, seed), budget(space)) for seed in range(5)]


def shares_closed(space: Space, bests: list[float], *ns: int, with_slopes: int) -> NDArray[np.float64]:
    """Return the share of the distance from the table's optimum to the best choice that `ns` evaluations close `(5, len(ns))`, in five worlds."""
    closed = []
    for seed, best in enumerate(bests):
        world = World(space, seed)
        table_only = world(solve(space, world.table, budget(space)).choice)
        expand = world.expand if with_slopes else None
        values = run(auto(problem(space), budget(space), tables=(world.table,), refit=world.refit, expand=expand), world, max(ns)).values[:, 0]
        least = np.array([values[:n].min() for n in ns])
        assert (least <= table_only).all()
        closed.append((table_only - least) / (table_only - best) if table_only > best else np.ones(len(ns)))
    return np.array(closed)


def test_slopes_find_what_the_table_cannot_know(space: Space, bests: list[float]) -> None:
    assert shares_closed(space, bests, 8, with_slopes=1).mean() > 0.7


def test_measurements_find_it_too(space: Space, bests: list[float]) -> None:
    few, many = shares_closed(space, bests, 8, 40, with_slopes=0).T
    assert few.mean() < many.mean()
    assert many.mean() > 0.7


def test_never_above_the_budget_and_never_twice(space: Space) -> None:
    world = World(space, 1)
    trials = run(auto(problem(space), budget(space), tables=(world.table,), refit=world.refit, expand=world.expand), world, 60)
    assert (space.total_bits(trials.choices) <= budget(space)).all()
    assert len(np.unique(trials.choices, axis=0)) == len(trials)


@pytest.mark.parametrize("of_budget", [True, False], ids=["budget", "front"])
def test_a_format_that_no_unit_is_offered_changes_no_question(*, of_budget: bool) -> None:
    def asked(known: Landscape) -> list[list[int]]:
        refit, posed = ridge(known.space), Problem(known.space, np.zeros((0, 12), dtype=np.int64), n_sequences=8, seed=0)
        if of_budget:
            strategy = auto(posed, known.middle_bits(), tables=(known.table,), refit=refit)
        else:
            strategy = auto_front(posed, table=known.table, refit=refit, n_points=4)
        return choices_of(searched(strategy, exactly(known), n=30)).tolist()

    assert np.add(asked(LARGE), 1).tolist() == asked(WIDER)


def test_stops_where_the_text_could_not_tell_a_gain(space: Space) -> None:
    world = World(space, 1)
    many = run(auto(problem(space), budget(space), tables=(world.table,), refit=world.refit), world, 200, error=1e-4)
    few = run(auto(problem(space), budget(space), tables=(world.table,), refit=world.refit), world, 200, error=10.0)
    assert 1 < len(few) <= 1 + 4 + 3 < len(many)  # a round that shows what a difference is worth, and a choice in each of three that promise nothing


@pytest.mark.parametrize(("scale", "noise", "n_evaluations"), [(1e-3, 1e-3, 2), (1e-3, 1e-9, 9), (1e3, 1e3, 9)])
def test_does_not_begin_where_perfect_prices_would_gain_less_than_the_text_can_tell(
    space: Space, scale: float, noise: float, n_evaluations: int
) -> None:
    """Far from the original the table's prices say nothing of what there is to gain, and the search begins."""
    world, given = World(space, 0), np.full(N_UNITS, 3)
    strategy = auto(problem(space, given), budget(space), tables=(world.table,), refit=world.refit)
    n, question = 0, strategy.ask()
    assert question.against.tolist() == [question.choices[0].tolist()]
    while n < n_evaluations and not question.is_last:
        values = np.array([[scale * world(choice)] for choice in question.choices])
        strategy.tell(Trials(question.choices, values, values * 1e-4, np.full(len(values), question.n_sequences), np.full(len(values), noise)))
        n, question = n + len(values), strategy.ask()
    assert n == 2 if n_evaluations == 2 else n > 4  # both at a glance, and on all of the text where there is something to gain


def test_a_glance_does_not_end_a_search_that_all_of_the_text_could_tell_from_chance(space: Space) -> None:
    """All of 64 sequences may tell from chance what eight of them cannot: their noise is that of eight over the root of 8."""
    world, noises, least = World(space, 0), np.geomspace(1e-7, 1e-3, 60), list[float]()
    for n_sequences in (8, 64):
        posed = replace(problem(space, np.full(N_UNITS, 3)), n_sequences=n_sequences)

        def is_ended(noise: float, posed: Problem = posed) -> bool:
            return ends(auto(posed, budget(space), tables=(world.table,), refit=world.refit), world, noise)

        least.append(float(noises[bisect_left(noises, True, key=is_ended)]))  # more noise ends whatever less does
    assert noises[0] < least[0] < least[1]
    assert least[1] / least[0] == pytest.approx(np.sqrt(8), rel=0.2)


def ends(strategy: Strategy, world: World, noise: float) -> bool:
    """Return whether a search ends after a glance whose paired differences have that noise."""
    question = strategy.ask()
    assert question.n_sequences == 8
    values = np.array([[1e-3 * world(choice)] for choice in question.choices])
    strategy.tell(Trials(question.choices, values, values * 1e-4, np.full(len(values), 8), np.full(len(values), noise)))
    return strategy.ask().is_last


def test_does_not_begin_where_no_prices_lead_to_another_choice(space: Space) -> None:
    """A model stored in a format of the menu: that format loses nothing, and what is left of the budget buys nothing."""
    world, lossless, coarse = World(space, 0), np.full(N_UNITS, 1), np.full(N_UNITS, 3)
    table = world.table / 100
    table[:, 1] = 0.0
    assert auto(problem(space, coarse), space.total_bits(lossless), tables=(table / 10,), refit=world.refit).ask().is_last
    strategy = auto(problem(space, coarse), space.total_bits(lossless), tables=(table + 1,), refit=world.refit)
    question = strategy.ask()
    assert question.choices.tolist() == [lossless.tolist(), coarse.tolist()]  # the table does not put it near, the text does
    values, n_sequences = np.array([[0.001], [0.02]]), np.array([8, 8])
    strategy.tell(Trials(question.choices, values, values * 0.1, n_sequences, np.array([np.nan, 1e9])))
    assert strategy.ask().is_last


def test_the_same_answers_lead_to_the_same_questions(space: Space) -> None:
    world = World(space, 2)
    first, second = (run(auto(problem(space, seed=7), budget(space), tables=(world.table,), refit=world.refit), world, 30).choices for _ in range(2))
    assert np.array_equal(first, second)


def test_a_front_grows_beyond_the_predicted_one(space: Space) -> None:
    world = World(space, 4)
    reference = np.array([world(np.full(N_UNITS, 3)), float(space.total_bits(np.zeros(N_UNITS, dtype=np.int64)))]) * 1.01

    trials = run(auto_front(problem(space), table=world.table, refit=world.refit, n_points=6), world, 30)
    points = np.stack([trials.values[:, 0], space.total_bits(trials.choices).astype(float)], axis=1)
    assert hypervolume(points[:6], reference) < hypervolume(points, reference)


def test_impossible_budgets_and_wrong_tables_are_refused(space: Space) -> None:
    world = World(space, 0)
    with pytest.raises(BudgetError, match="smallest file"):
        auto(problem(space), 1, tables=(world.table,), refit=world.refit)
    with pytest.raises(UserError, match="finite"):
        auto(problem(space), budget(space), tables=(world.table * np.nan,), refit=world.refit)


@pytest.mark.parametrize(("scale", "sweeps"), [(1e-3, 0), (1e3, 1)])
def test_slopes_cost_nothing_near_the_original(space: Space, scale: float, sweeps: int) -> None:
    world, asked_at = World(space, 0), list[bytes]()

    def expand(choice: Choice) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        asked_at.append(choice.tobytes())
        return world.expand(choice)

    optimum = solve(space, world.table, budget(space)).choice
    strategy = auto(problem(space), budget(space), tables=(world.table,), refit=world.refit, expand=expand)
    assert not strategy.ask().is_last
    value = np.array([[scale * world(optimum)]])
    for n_sequences in (8, 64):
        strategy.tell(Trials(optimum[None], value, np.full_like(value, 1e-4), np.array([n_sequences]), np.full(1, np.nan)))
        strategy.ask()
    assert len(asked_at) == sweeps


def test_all_that_is_asked_for_keeps_the_rows(space: Space) -> None:
    world = World(space, 4)
    budget_bits = int(space.total_bits(space.smallest()) + space.total_bits(space.largest())) // 2
    free = run(auto(problem(space), budget_bits, tables=(world.table,), refit=world.refit), world, 40)
    few = np.array([[1.0, 0.0, 0.0, 0.0]] * N_UNITS)  # at most so many in the largest format
    most = int((free.choices[free.values[:, 0].argmin()] == 0).sum()) - 1
    assert most >= 0
    row = Row(few, -np.inf, float(most))
    bound = replace(problem(space, space.smallest(), space.uniform(space.formats[0])), rows=(row,))
    found = run(auto(bound, budget_bits, tables=(world.table,), refit=world.refit, expand=world.expand), world, 40)
    assert len(found.choices) > 3
    assert all(row.holds(choice) for choice in found.choices)
    assert (space.total_bits(found.choices) <= budget_bits).all()
    assert (found.choices[0] == solve_with_rows(space, world.table, budget_bits, rows=(row,)).choice).all()
