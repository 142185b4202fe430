"""A strategy at work: what it spends is counted truly, it stops where the effort is spent, and it goes on where it was."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Model, choice_loader, load, swapping
from bitwright.errors import UserError
from bitwright.methods import AUTO
from bitwright.objectives import Evaluator, KullbackLeibler, Reference, Store
from bitwright.pipeline.searching.ask_tell_loop import Meter, SearchResult, run_strategy
from bitwright.pipeline.searching.search import Search
from bitwright.progress import Silent
from bitwright.search import Problem, Question, Strategy, Trials, random_within
from bitwright.spaces import Choice, Space
from tests.measuring import levels_of, random_tokens, space_of, uniform
from tests.sentences import sentence

MENU, TOKENS = ("Q8_0", "Q5_0", "Q4_0"), random_tokens(20, 8)


@pytest.fixture(scope="module")
def model(llama_tied: Path) -> Model:
    return load(str(llama_tied))


@pytest.fixture(scope="module")
def space(model: Model) -> Space:
    return space_of(model, MENU)


@pytest.fixture
def evaluator(model: Model, space: Space, tmp_path: Path) -> Iterator[Evaluator]:
    levels, store = levels_of(model, tmp_path), Store(tmp_path / "run.sqlite")
    for name in MENU:
        for unit in space.units:
            levels.packed(unit.tensors[0], next(form for form in space.formats if form.name == name))
    with swapping(model) as swapper:
        reference = Reference(model, TOKENS, scratch=tmp_path, progress=Silent())
        yield Evaluator(model, choice_loader(swapper, model, levels, space), reference=reference, objectives=(KullbackLeibler(),), store=store)
    store.close()


class Asks(Strategy):
    """Strategy that asks what it was made with, and keeps what it is told."""

    def __init__(self, *questions: Question) -> None:
        self.questions, self.told = list(questions), list[Trials]()

    def ask(self) -> Question:
        finished = question(1, *self.questions[0].choices[:1])
        return (*self.questions, Question(finished.choices[:0], 1, finished.against))[len(self.told)]

    def tell(self, trials: Trials) -> None:
        self.told.append(trials)


def question(n_sequences: int, *choices: Choice, against: tuple[Choice, ...] = ()) -> Question:
    return Question(np.array(choices), n_sequences, np.array(against, dtype=np.int64).reshape(-1, len(choices[0])))


def explored(strategy: Strategy, evaluator: Evaluator, **limits: float) -> tuple[SearchResult, Meter]:
    meter = Meter()
    return run_strategy(strategy, evaluator, search=Search(AUTO, **limits), meter=meter, progress=Silent()), meter


def test_counts_each_sequence_of_a_choice_once(evaluator: Evaluator, space: Space) -> None:
    one, two = uniform(space, "Q4_0"), uniform(space, "Q8_0")
    found, meter = explored(Asks(question(4, one, two), question(20, one), question(4, two)), evaluator)
    assert found.is_finished
    assert (meter.evaluations, meter.forward_tokens, meter.backward_tokens) == (2, (20 + 4) * 8, 0)
    assert [spent.tokens for _, spent in found.steps] == [32, 64, 24 * 8, 24 * 8]
    assert len(found.trials) == 2
    assert sorted(found.trials.n_sequences.tolist()) == [4, 20]
    assert meter.seconds > 0


@pytest.mark.parametrize(("limits", "n"), [({"evaluations": 2}, 2), ({"tokens": 8 * 20 + 1}, 2), ({"tokens": 8 * 20}, 1), ({"evaluations": 0}, 0)])
def test_the_evaluation_that_reaches_the_limit_is_the_last(evaluator: Evaluator, space: Space, limits: dict[str, float], n: int) -> None:
    strategy = Asks(question(20, *(uniform(space, name) for name in MENU)))
    found, _ = explored(strategy, evaluator, **limits)
    assert len(found.steps) == n
    assert not found.is_finished
    assert [len(trials) for trials in strategy.told] == ([n] if n else [])


def test_a_choice_given_up_is_told_with_its_paired_difference(evaluator: Evaluator, space: Space) -> None:
    good, bad = uniform(space, "Q8_0"), uniform(space, "Q4_0")
    strategy = Asks(question(20, good), question(20, bad, against=(good,)))
    explored(strategy, evaluator)
    told = strategy.told[1]
    assert told.n_sequences[0] == 8
    goods, bads = evaluator(good, 20).by_sequence[:, 0], evaluator(bad, 8).by_sequence[:, 0]
    assert told.values[0, 0] == pytest.approx(goods.mean() + (bads - goods[:8]).mean())
    assert told.paired_errors[0] == pytest.approx((bads - goods[:8]).std(ddof=1) / np.sqrt(8))
    assert np.isnan(strategy.told[0].paired_errors).all()


def test_a_search_run_again_measures_nothing_and_ends_the_same(evaluator: Evaluator, space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = int(space.total_bits(uniform(space, "Q5_0")))

    def random() -> Strategy:
        return random_within(Problem(space, uniform(space, "Q4_0")[None], 12, seed=1), budget, n=6)

    first, spent = explored(random(), evaluator, evaluations=4)
    monkeypatch.setattr(Evaluator, "_measure", None)
    again, spent_again = explored(random(), evaluator, evaluations=4)
    assert np.array_equal(first.trials.choices, again.trials.choices)
    assert np.array_equal(first.trials.values, again.trials.values)
    assert spent_again.tokens == spent.tokens


@pytest.mark.parametrize(("name", "word"), [("evaluations", "evaluations"), ("tokens", "tokens"), ("seconds", "--minutes")])
@pytest.mark.parametrize("value", [-1, float("nan")])
def test_an_effort_below_zero_is_refused(name: str, word: str, value: float) -> None:
    with pytest.raises(UserError) as caught:
        Search(AUTO, **{name: value})
    sentence(caught.value, word)
