from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitwright as bw
from bitwright.cli import inspect_commands
from bitwright.errors import UserError
from bitwright.pipeline import Run
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.pricing import proxy_comparison
from bitwright.pipeline.pricing.proxy_comparison import chosen_proxies, compare_proxies, comparison_cost
from bitwright.pipeline.pricing.run_space import price
from bitwright.predictors import PROXIES
from bitwright.progress import Silent
from tests.runs import small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

NAMES = ("weight", "gradient", "measured", "lim")


def opened(model: Path, folder: Path) -> tuple[LoadedRun, Run]:
    made = set_up(small(model, formats=("Q8_0", "Q5_1", "Q4_0"), sensitivity="weight"), folder, device="cpu", progress=Silent())
    return made, price(made)


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("work was done again")


def test_proxies_are_judged_by_plans_that_are_measured_once(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = opened(llama_tied, tmp_path)
    found = compare_proxies(run, NAMES, n_plans=24)
    assert [proxy.name for proxy in found.proxies] == [*NAMES]
    assert (found.n_plans, found.n_alike) == (24, 12)
    assert found.among.shape == (4, 4)
    np.testing.assert_allclose(np.diag(found.among), 1)
    by_name = {proxy.name: proxy for proxy in found.proxies}
    assert by_name["measured"].every.spearman > 0.8
    assert found.nats_every[0] <= found.nats_alike[0] < found.nats_alike[1] <= found.nats_every[1]
    assert not run.measurements, "plans that were drawn to judge proxies are no points of the front"
    monkeypatch.setattr("bitwright.pipeline.pricing.price_table.subject_of", refuse)
    monkeypatch.setattr("bitwright.pipeline.loaded_run.Reference", refuse)
    again = compare_proxies(run, NAMES, n_plans=24)
    assert again.proxies == found.proxies


def test_what_the_run_has_measured_counts_too(llama_tied: Path, tmp_path: Path) -> None:
    made, run = opened(llama_tied, tmp_path)
    space = run.space
    measure(made, run, [space.smallest(), space.largest()])
    found = compare_proxies(run, ("weight",), n_plans=6)
    assert (found.n_plans, found.n_alike) == (8, 3)
    nats = [measurement.nats_per_token for measurement in run.measurements.values()]
    assert found.nats_every == (pytest.approx(min(nats)), pytest.approx(max(nats)))


def test_without_names_all_that_are_cheap_are_taken(llama_tied: Path, tmp_path: Path) -> None:
    _, run = opened(llama_tied, tmp_path)
    names = {proxy.name for proxy in chosen_proxies(run, ())}
    assert {"weight", "importance", "gradient", "first-order", "output-change", "lim"} <= names
    assert not names & {"measured", "measured-fine", "noise", "shapley"}
    assert [proxy.name for proxy in chosen_proxies(run, ("lim", "weight", "lim"))] == ["lim", "weight"]
    assert len(names) < len(PROXIES)


def test_the_cost_is_known_before_the_model_is_loaded(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = opened(llama_tied, tmp_path)
    monkeypatch.setattr(proxy_comparison, "set_up", refuse)
    cost = comparison_cost(run, ("gradient", "lim", "weight"), n_plans=10)
    n_calibration, n_held_out = (n * run.settings.sequence_length for n in (run.settings.n_calibration, run.settings.n_held_out))
    assert (cost.pricing_tokens, cost.measuring_tokens) == (3 * n_calibration, 11 * n_held_out)
    assert f"{3 * n_calibration:,} tokens" in cost.text
    for names, n_plans, word in ((("guess",), 10, "'guess'"), (("weight",), 5, "--plans")):
        for verb in (comparison_cost, compare_proxies):
            with pytest.raises(UserError) as refused:
                verb(run, names, n_plans=n_plans)
            sentence(refused.value, word)


def test_the_command_prints_cost_tables_and_a_verdict(llama_tied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, run = opened(llama_tied, tmp_path)
    inspect_commands.proxies(tmp_path, names="weight, gradient", plans=12)
    told = " ".join(capsys.readouterr().out.split())
    assert told.index("2 proxies read at most") < told.index("Rank correlation between proxies") < told.index("On this model and text, trust ")
    assert bw.open_run(tmp_path).table.shape == run.table.shape
