"""NSGA-II and TPE of Optuna: the contract, what a budget costs, and that Optuna's settings stay as they were."""

import logging
import sys

import numpy as np
import optuna
import pytest

from bitwright.errors import LibraryError
from bitwright.search import Problem, Strategy, nsga2, nsga2_front, tpe
from bitwright.spaces import Space
from bitwright.testing.strategy_contract import LARGE, BudgetContract, FrontContract, choices_of, exactly, problem, searched
from tests.sentences import sentence

pytestmark = pytest.mark.slow


class TestNsga2(BudgetContract):
    n_to_best = 300

    def strategy(self, problem: Problem, budget_bits: int) -> Strategy:
        return nsga2(problem, budget_bits, n=300, population=20)


class TestNsga2Front(FrontContract):
    n_to_best = 200
    n_against_random = 400  # at 100 it is not yet better

    def strategy(self, problem: Problem) -> Strategy:
        return nsga2_front(problem, 10**12, n=500, population=20)


class TestTpe(BudgetContract):
    n_to_best = 60

    def strategy(self, problem: Problem, budget_bits: int) -> Strategy:
        return tpe(problem, budget_bits, n=200)


def test_a_front_below_a_budget_stays_below_it() -> None:
    budget_bits = LARGE.middle_bits()
    choices = choices_of(searched(nsga2_front(problem(LARGE.space), budget_bits, n=60, population=20), exactly(LARGE), n=100))
    sizes = LARGE.space.total_bits(choices)
    assert len(choices) == 60
    assert (sizes <= budget_bits).all()
    assert np.ptp(sizes) > 0.2 * (budget_bits - LARGE.middle_bits(0.0))


def test_a_population_finds_a_tight_budget_without_measuring() -> None:
    budget_bits = LARGE.middle_bits(0.05)
    choices = choices_of(searched(nsga2(problem(LARGE.space), budget_bits, n=10, population=20), exactly(LARGE), n=10))
    assert len(choices) == 10
    assert (LARGE.space.total_bits(choices) <= budget_bits).all()


def test_tpe_learns_from_what_was_measured_and_from_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    studies: list[optuna.Study] = []
    create = optuna.create_study
    monkeypatch.setattr(optuna, "create_study", lambda **options: studies.append(create(**options)) or studies[-1])
    budget_bits = LARGE.middle_bits(0.1)  # most proposals are above it
    strategy = tpe(problem(LARGE.space), budget_bits, n=40)
    choices = choices_of(searched(strategy, exactly(LARGE), n=30))
    strategy.ask()
    learnt = [trial.values[0] for trial in studies[0].trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert set(learnt) == set(LARGE(choices).tolist())
    assert any(trial.state == optuna.trial.TrialState.FAIL for trial in studies[0].trials)


@pytest.mark.parametrize("make", [nsga2, nsga2_front, tpe])
def test_optunas_voice_is_as_it_was(make, capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    start = LARGE.space.smallest()[None]
    searched(make(problem(LARGE.space, start=start), LARGE.middle_bits(), n=20), exactly(LARGE), n=20)
    assert optuna.logging.get_verbosity() == logging.INFO
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("make", [nsga2, nsga2_front, tpe])
def test_without_optuna_there_is_a_sentence(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(LibraryError) as refused:
        make(problem(LARGE.space), LARGE.middle_bits(), n=20)
    sentence(refused.value, "optuna", "bitwright[search]")


def test_a_space_of_another_shape_is_learnt_as_it_is() -> None:
    space: Space = LARGE.space.narrowed(np.arange(4) < np.arange(1, 13)[:, None])  # the first unit has one format
    choices = choices_of(searched(tpe(problem(space), LARGE.middle_bits(), n=40), exactly(LARGE), n=40))
    assert (choices[:, 0] == 0).all()
    assert len(np.unique(choices, axis=0)) == 40
