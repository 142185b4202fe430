"""Every method at work on a run of a tiny model: within its budget, at its effort, and the same again without measuring anything anew."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.errors import LibraryError, UserError
from bitwright.methods import Method
from bitwright.methods.by_name import METHODS, PUBLISHED, method_named
from bitwright.methods.published_experts import OF_EXPERTS
from bitwright.objectives import Estimate, Evaluator, KullbackLeibler, ModelObjective
from bitwright.pipeline import Run, Search
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.planning.candidates import candidates, own_candidate
from bitwright.pipeline.planning.origins import origin
from bitwright.pipeline.planning.reductions import by_reduction
from bitwright.pipeline.pricing.run_space import front_points, price
from bitwright.pipeline.searching.ask_tell_loop import Meter
from bitwright.pipeline.searching.model_problem import open_problem
from bitwright.pipeline.searching.run_search import search_budget, search_front
from bitwright.pipeline.searching.search import named_objectives
from bitwright.progress import Silent
from bitwright.report.tables.methods import whose_plan
from bitwright.search import RelaxedOptions, Row, solve
from tests.runs import small
from tests.sentences import sentence

#: fewer evaluations than the others' 24, with which EvoPress has begun its second generation: the Gaussian process of `nehvi` is fitted again and
#: again, and every step of `relaxed` is a pass forward and back
_EVALUATIONS = {"nehvi": 12, "relaxed": 8}
_WHOLE_FRONT = {"amq", "automixq", "nehvi"}  # whatever the budget
MENU = ("INT2_G32", "INT3_G32", "INT4_G32", "INT6_G32")


@pytest.fixture(scope="module")
def opened(llama_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoadedRun, Run]]:
    settings = small(llama_tied, target="integers", formats=MENU, skip=("token_embd*",), n_calibration=10, sequence_length=12)
    bench = set_up(settings, tmp_path_factory.mktemp("campaign"), device="cpu", progress=Silent())
    run = price(bench)
    yield bench, run
    run.store.close()


@pytest.fixture(scope="module")
def opened_mixture(tiny_mixtral: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LoadedRun, Run]]:
    settings = small(tiny_mixtral, target="native", formats=MENU, structure=("experts",), skip=("token_embd*",), n_calibration=10, sequence_length=12)
    bench = set_up(settings, tmp_path_factory.mktemp("mixture"), device="cpu", progress=Silent())
    run = price(bench)
    yield bench, run
    run.store.close()


@pytest.mark.slow
def test_a_search_begins_at_the_optima_within_bits_and_each_reduction(llama_tied: Path, tmp_path: Path) -> None:
    menu = ("INT2_G32", "INT4_G32", "INT4_2OF4", "INT2_R8")
    bench = set_up(
        small(llama_tied, target="native", formats=menu, sensitivity="importance", n_calibration=2, sequence_length=12), tmp_path, device="cpu",
        progress=Silent(),
    )  # fmt: skip
    run = price(bench)
    budget_bits = middle(run) // 8 * 8
    found = search_budget(bench, run, budget_bits=budget_bits, search=Search(method_named("auto"), evaluations=7))
    asked = {tuple(choice.tolist()) for choice in found.trials.choices}
    starts = by_reduction(run.space, run.table, budget_bits // 8, ())
    assert len(starts) == 3
    assert all(tuple(choice.tolist()) in asked for choice in starts.values())
    run.store.close()


@pytest.fixture(autouse=True)
def _short_descents(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step of `relaxed` is a pass forward and back."""
    monkeypatch.setattr("bitwright.methods.differentiable.RelaxedOptions", partial(RelaxedOptions, n_rounds=2, n_steps=2))


@pytest.fixture
def opened_for(method: Method, request: pytest.FixtureRequest) -> tuple[LoadedRun, Run]:
    """A run of a model that the method can do."""
    made: tuple[LoadedRun, Run] = request.getfixturevalue("opened_mixture" if method in OF_EXPERTS else "opened")
    return made


def _most(method: Method) -> int:
    return _EVALUATIONS.get(method.name, 24)


def middle(run: Run) -> int:
    space = run.space
    return int(space.total_bits(space.smallest()) + space.total_bits(space.largest())) // 2


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_keeps_its_budget_and_its_effort(method: Method, opened_for: tuple[LoadedRun, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    bench, run = opened_for
    before = {name: weight.detach().clone() for name, weight in bench.model.module.named_parameters()}
    most = _most(method)
    search = Search(method, evaluations=most)
    found = search_budget(bench, run, budget_bits=middle(run), search=search)
    assert 0 < len(found.steps) <= most + 15  # a choice may be asked for on more text than before
    assert found.spent.evaluations <= most
    sizes = run.space.total_bits(found.trials.choices)
    assert (sizes <= middle(run)).any()
    if method.name not in _WHOLE_FRONT:  # which search the whole front
        assert (sizes <= middle(run)).all()
    assert all((weight == before[name]).all() for name, weight in bench.model.module.named_parameters())
    monkeypatch.setattr(Evaluator, "_measure", None)
    again = search_budget(bench, run, budget_bits=middle(run), search=search)
    assert np.array_equal(again.trials.choices, found.trials.choices)
    assert np.array_equal(again.trials.values, found.trials.values)
    assert again.spent.tokens == found.spent.tokens


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_searches_the_front(method: Method, opened_for: tuple[LoadedRun, Run]) -> None:
    bench, run = opened_for
    found = search_front(bench, run, n_points=4, search=Search(method, evaluations=_most(method)))
    sizes = run.space.total_bits(found.trials.choices)
    assert len(np.unique(sizes)) > 1
    assert found.spent.evaluations <= _most(method)


def test_methods_say_where_they_are_from() -> None:
    assert len({method.name for method in METHODS}) == len(METHODS)
    assert all(method.source for method in METHODS)


def test_an_unknown_method_is_told_what_was_meant() -> None:
    with pytest.raises(UserError) as caught:
        method_named("evopres")
    assert sentence(caught.value, "'evopres'").endswith("did you mean evopress?")
    with pytest.raises(UserError) as caught:
        method_named("x")
    sentence(caught.value, *(method.name for method in METHODS))


@pytest.mark.slow
def test_what_a_search_found_is_a_candidate_and_a_point_of_the_front(opened: tuple[LoadedRun, Run]) -> None:
    bench, run = opened
    search_front(bench, run, n_points=6, search=Search(method_named("auto"), evaluations=30))
    size_bytes = middle(run) // 8
    nats = {choice: value for choice, value in run.evaluated().items() if run.space.total_bytes(np.array(choice)) <= size_bytes}
    best = min(nats, key=lambda choice: nats[choice])
    named = candidates(run, size_bytes)
    assert any(tuple(choice.tolist()) == best for choice in named.values())
    assert {tuple(choice.tolist()) for choice in front_points(run, 5)} <= set(run.evaluated())


@pytest.mark.slow
def test_no_effort_is_the_tables_word(opened: tuple[LoadedRun, Run]) -> None:
    bench, run = opened
    found = search_budget(bench, run, budget_bits=middle(run), search=Search(method_named("auto"), evaluations=0))
    assert (len(found.trials), found.is_finished) == (0, False)
    optimum = solve(run.space, run.table, middle(run)).choice
    assert (candidates(run, middle(run) // 8)["knapsack"] == optimum).all()


class Steps(ModelObjective):
    """A user's own number: the mean square of the first matrix."""

    name, unit = "steps", ""

    def evaluate_model(self, model: object) -> Estimate:
        return Estimate(float(next(p for n, p in model.module.named_parameters() if "layers" in n).square().mean()), 0.0)


@pytest.mark.slow
def test_a_users_objective_decides(opened: tuple[LoadedRun, Run]) -> None:
    bench, run = opened
    search = Search(method_named("auto"), evaluations=5, objectives=(Steps(), KullbackLeibler()))
    found = search_budget(bench, run, budget_bits=middle(run), search=search)
    assert found.trials.values.shape[1] == 2
    assert (found.trials.values[:, 0] > 0).all()
    assert set(run.evaluated()) == {tuple(choice.tolist()) for choice in found.trials.choices}
    assert sorted(run.evaluated().values()) == sorted(found.trials.values[:, 0].tolist())


@pytest.mark.slow
def test_the_objective_that_is_named_first_decides_the_plan(llama_tied: Path, tmp_path: Path) -> None:
    objectives = named_objectives("flips,kl,bits")
    fitted = bw.fit(small(llama_tied), bw.parse_budget("6.5bpw"), tmp_path, by=Search(method_named("auto"), evaluations=3, objectives=objectives))
    assert [name.split()[0] for name in fitted.judgement.objectives] == ["flips", "kl", "bits"]
    flips = fitted.judgement.first_values()
    assert len(flips) == len({candidate.label for candidate in fitted.summary.candidates})
    assert flips[fitted.plan.found.strategy] == min(flips.values())


def test_size_alone_is_no_objective_of_a_search() -> None:
    assert named_objectives(" ") == ()
    with pytest.raises(UserError) as caught:
        named_objectives("bits")
    sentence(caught.value, "'bits'")


@pytest.mark.slow
def test_an_impossible_budget_is_refused(opened: tuple[LoadedRun, Run]) -> None:
    bench, run = opened
    for method in METHODS:
        if method.name not in _WHOLE_FRONT:
            with pytest.raises(UserError) as caught:
                search_budget(bench, run, budget_bits=8, search=Search(method, evaluations=1))
            sentence(caught.value)


@pytest.mark.slow
def test_as_published_ships_the_methods_own_plan_and_sweeps_no_gradient(llama_tied: Path, tmp_path: Path) -> None:
    by = Search(method_named("evopress"), evaluations=3, as_published=True)
    fitted = bw.fit(small(llama_tied), bw.parse_budget("6.5bpw"), tmp_path, by=by)
    found, stages = fitted.plan.found, {stage.name for stage in fitted.summary.stages}
    assert "searching" in stages
    assert "gradient sweep" not in stages
    assert [candidate.label for candidate in fitted.summary.candidates] == ["evopress"] == [found.strategy]
    assert (found.won, found.method, found.sensitivity, found.objectives) == ("method", "evopress", "importance", ("kl",))
    assert found.effort.evaluations == 3
    assert found.effort.tokens > 0
    assert found.held_out == fitted.plan.divergence.text
    assert {"torch", "transformers", "xllamacpp"} <= set(found.versions)
    assert whose_plan(found).startswith("The plan is evopress's own, found with 3 evaluations")


@pytest.mark.slow
def test_a_plan_says_whose_it_is(opened: tuple[LoadedRun, Run]) -> None:
    bench, run = opened
    method = method_named("random-mix")
    budget = middle(run) + 4_321 // 8 * 8
    search_budget(bench, run, budget_bits=budget, search=Search(method, evaluations=4))
    named = candidates(run, budget // 8, method=method.name)
    own = own_candidate(run, budget // 8, (), method=method.name)[method.name]
    assert any((choice == own).all() for choice in named.values()), "the method's own plan is always measured"
    assert origin(run, "knapsack", named["knapsack"], method.name).won == "table"
    uniform = next(name for name in named if name.startswith("uniform"))
    assert origin(run, uniform, named[uniform], method.name).won == "uniform"
    by = origin(run, f"{method.name} 1", own, method.name)
    assert (by.won, by.method, by.effort.evaluations) == ("method", "random-mix", 4)
    with pytest.raises(UserError) as caught:
        own_candidate(run, 1_000, (), method=method.name)
    sentence(caught.value, "random-mix", "--as-published")


@pytest.mark.slow
def test_what_a_method_takes_is_asked_of_it(opened: tuple[LoadedRun, Run]) -> None:
    bench, run = opened
    budget, space = middle(run), run.space
    widest = Row(
        np.where(space.offered, space.size_bits, 0).astype(float),
        -np.inf,
        float(space.size_bits[np.arange(len(space.units)), space.smallest()].sum()) * 1.2,
        "few bits",
    )
    asked = Search(method_named("modelopt"), evaluations=1)
    with open_problem(bench, run, asked, Meter(), rows=(widest,)) as (problem, _):
        choice = asked.method.for_budget(problem, budget).ask().choices[0]
    assert widest.holds(choice)
    assert {method.name for method in METHODS if method.takes_side_limits} == {"auto", "hawq", "higgs", "modelopt"}
    assert {method.name for method in METHODS if method.takes_cache_types} >= {"auto", "tpe", "nsga2", "nehvi", "local-search", "greedy", "random"}


def test_a_missing_library_is_said_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("tpe", "nsga2", "nehvi"):
        with pytest.raises(LibraryError) as caught:
            Search(method_named(name))
        sentence(caught.value, "optuna" if name != "nehvi" else "botorch", "bitwright[search]")


def test_the_published_methods_are_as_many_as_the_documentation_says() -> None:
    assert len(PUBLISHED) == 26
    assert {method.name for method in METHODS} - {method.name for method in PUBLISHED} >= {"auto", "tpe", "nsga2", "nehvi"}
