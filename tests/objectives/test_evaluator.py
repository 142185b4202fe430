"""Evaluation on the first sequences of a text: the right values, nothing measured twice, stopped early only when clearly worse."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model, WeightSwapper, choice_loader, swapping
from bitwright.errors import ObjectiveError
from bitwright.objectives import Estimate, Evaluator, KullbackLeibler, ModelObjective, Reference, Store, TokenObjective
from bitwright.objectives.evaluator import CLEAR_MARGIN
from bitwright.objectives.metrics.flips import Flips
from bitwright.objectives.metrics.perplexity import Perplexity
from bitwright.progress import Silent
from bitwright.spaces import Space
from tests.measuring import Divergence, levels_of, random_tokens, space_of, uniform
from tests.sentences import sentence

MENU = ("BF16", "Q8_0", "Q5_0", "Q4_0")
TOKENS = random_tokens(27, 8)


class Norm(ModelObjective):
    """The mean square of the last matrix's weights; counts how often it was asked."""

    name, unit = "norm", ""

    def __init__(self) -> None:
        self.n_asked = 0

    def evaluate_model(self, model: Model) -> Estimate:
        self.n_asked += 1
        return Estimate(float(list(model.module.parameters())[-2].square().mean()), 0.0)


@contextmanager
def evaluator(model: Model, folder: Path, *objectives: TokenObjective | ModelObjective) -> Iterator[tuple[Evaluator, WeightSwapper, Space]]:
    space, levels = space_of(model, MENU), levels_of(model, folder / "levels")
    for form in (form for form in space.formats if form.name in MENU):
        for unit in space.units:
            levels.packed(unit.tensors[0], form)
    store = Store(folder / "run.sqlite")
    reference = Reference(model, TOKENS, scratch=folder, progress=Silent())
    try:
        with swapping(model) as swapper:
            load = choice_loader(swapper, model, levels, space)
            yield Evaluator(model, load, reference=reference, objectives=objectives or (KullbackLeibler(),), store=store), swapper, space
    finally:
        store.close()


def refuse(choice: np.ndarray) -> None:
    """Stand-in for what loads a choice in a test that must not measure anything."""
    raise AssertionError("measured again")


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_equals_the_divergence_of_the_whole_text(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Model = request.getfixturevalue(name)
    with evaluator(model, tmp_path, KullbackLeibler(), Flips(), Perplexity()) as (evaluate, weights, space):
        choice = uniform(space, "Q4_0")
        found = evaluate(choice, 10**6)
        weights.restore()
        levels = levels_of(model, tmp_path / "levels")
        whole = Divergence(model, levels, space=space, reference=Reference(model, TOKENS, scratch=tmp_path, progress=Silent()))(choice)
    np.testing.assert_allclose(found.by_sequence[:, 0], whole.by_sequence[:, 0], rtol=1e-4, atol=1e-7)
    assert (found.n_sequences, found.n_tokens) == (27, 27 * 8)
    assert [estimate.value for estimate in found.estimates.values()] == pytest.approx(
        [whole.nats_per_token, 1 - whole.top1_agreement, whole.perplexity], rel=1e-3, abs=0.02
    )


def test_a_larger_part_begins_with_the_smaller(tied: Model, tmp_path: Path) -> None:
    with evaluator(tied, tmp_path) as (evaluate, _, space):
        choice = uniform(space, "Q5_0")
        small, large, again = evaluate(choice, 5), evaluate(choice, 20), evaluate(choice, 5)
    assert np.array_equal(large.by_sequence[:5], small.by_sequence)
    assert np.array_equal(again.by_sequence, small.by_sequence)
    assert small.first.value == small.by_sequence.mean() != large.first.value


def test_nothing_is_measured_twice(tied: Model, tmp_path: Path) -> None:
    norm = Norm()
    with evaluator(tied, tmp_path, KullbackLeibler(), norm) as (evaluate, _, space):
        choice = uniform(space, "Q5_0")
        first = evaluate(choice, 12)
        others = evaluate(choice, 20), evaluate(choice, 12)
        kept = Evaluator(tied, refuse, reference=evaluate._reference, objectives=(KullbackLeibler(), norm), store=evaluate._store)
        assert kept(choice, 20).estimates == others[0].estimates
    assert others[1].estimates == first.estimates
    assert norm.n_asked == 1
    assert others[0].seconds > first.seconds - 1e-9


def test_a_clearly_worse_choice_is_stopped_early_and_a_better_one_is_not(tied: Model, tmp_path: Path) -> None:
    with evaluator(tied, tmp_path) as (evaluate, _, space):
        good, bad = uniform(space, "Q8_0"), uniform(space, "Q4_0")
        assert evaluate(bad, 27, against=[good]).n_sequences == 8
        assert evaluate(good, 27, against=[bad]).n_sequences == 27
        assert evaluate(bad, 27).n_sequences == 27
        assert evaluate(bad, 27, against=[good]).n_sequences == 8  # as before, though more is known by now


def test_choices_that_do_not_differ_clearly_are_measured_to_the_end(tied: Model, tmp_path: Path) -> None:
    with evaluator(tied, tmp_path) as (evaluate, _, space):
        one, other = uniform(space, "Q5_0"), uniform(space, "Q5_0")
        other[0] = uniform(space, "Q8_0")[0]
        difference = evaluate(one, 27).by_sequence[:, 0] - evaluate(other, 27).by_sequence[:, 0]
        looks = [8, 16, 27]
        clear = [n for n in looks if difference[:n].mean() > CLEAR_MARGIN * difference[:n].std(ddof=1) / np.sqrt(n)]
        assert evaluate(one, 27, against=[other]).n_sequences == (clear or looks)[0 if clear else -1]


def test_nothing_is_stopped_early_with_a_model_objective(tied: Model, tmp_path: Path) -> None:
    with evaluator(tied, tmp_path, Norm()) as (evaluate, _, space):
        found = evaluate(uniform(space, "Q4_0"), 27, against=[uniform(space, "Q8_0")])
    assert (found.n_sequences, found.n_tokens) == (27, 0)
    assert found.first.value > 0
    assert found.seconds > 0


class Undefined(TokenObjective):
    name, unit = "undefined", ""

    def token_values(self, original: object, changed: object, following: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(len(following)) == TOKENS.ids.shape[1], torch.nan, 1.0)  # in the second of several sequences


def test_a_value_that_is_no_number_is_a_sentence_and_loses_nothing(tied: Model, tmp_path: Path) -> None:
    with evaluator(tied, tmp_path, Undefined()) as (evaluate, _, space):
        choice = uniform(space, "Q4_0")
        evaluate(choice, 1)
        with pytest.raises(ObjectiveError) as caught:
            evaluate(choice, 3)
        sentence(caught.value, "undefined")
        assert evaluate(choice, 1).first.value == 1


def test_an_objective_that_comes_later_is_measured_alone(tied: Model, tmp_path: Path) -> None:
    with evaluator(tied, tmp_path, KullbackLeibler(), Flips()) as (evaluate, _, space):
        choice = uniform(space, "Q4_0")
        alone = Evaluator(tied, evaluate._load, reference=evaluate._reference, objectives=(KullbackLeibler(),), store=evaluate._store)
        first = alone(choice, 12)
        read = CountingReference(evaluate._reference)
        both = Evaluator(tied, evaluate._load, reference=read, objectives=(KullbackLeibler(), Flips()), store=evaluate._store)
        found = both(choice, 20)
        assert read.passes == [(("flips",), 0, 20), (("kl",), 12, 20)]
        assert found.estimates == evaluate(choice, 20).estimates
    assert np.array_equal(found.by_sequence[:12, 0], first.by_sequence[:, 0])


class CountingReference(Reference):
    """Reference that notes what was measured."""

    def __init__(self, other: Reference) -> None:
        self.tokens, self._other, self.passes = other.tokens, other, list[tuple[tuple[str, ...], int, int]]()

    def measure_each(
        self, model: Model, objectives: Sequence[TokenObjective], loads: Sequence[Callable[[], None]], *, first: int = 0, stop: int | None = None
    ) -> list[np.ndarray]:
        assert stop is not None
        self.passes.append((tuple(objective.name for objective in objectives), first, stop))
        return self._other.measure_each(model, objectives, loads, first=first, stop=stop)


class OfText(Norm):
    """Mean square of the last matrix's weights, as a value that is one of the text."""

    reads_text = True


@pytest.mark.parametrize(("objective", "n_asked"), [(Norm(), 1), (OfText(), 2)])
def test_a_model_objective_is_asked_again_on_another_text_only_where_it_reads_it(tied: Model, tmp_path: Path, objective: Norm, n_asked: int) -> None:
    with evaluator(tied, tmp_path, objective) as (evaluate, _, space):
        other = Reference(tied, random_tokens(3, 8, seed=5), scratch=tmp_path, progress=Silent())
        evaluate(uniform(space, "Q4_0"), 8)
        Evaluator(tied, evaluate._load, reference=other, objectives=(objective,), store=evaluate._store)(uniform(space, "Q4_0"), 3)
    assert objective.n_asked == n_asked


def test_a_model_objective_is_asked_again_of_another_rounding(tied: Model, tmp_path: Path) -> None:
    norm = Norm()
    with evaluator(tied, tmp_path, norm) as (evaluate, _, space):
        choice = uniform(space, "Q4_0")
        evaluate(choice, 8)
        shipped = Evaluator(tied, evaluate._load, reference=evaluate._reference, objectives=(norm,), store=evaluate._store, rounding="gptq")
        assert shipped(choice, 8).estimates == evaluate(choice, 8).estimates
    assert norm.n_asked == 2
