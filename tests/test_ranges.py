"""Numbers outside their ranges are one sentence wherever they come from, and `--help` tells every range."""

import re
from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

import bitwright as bw
from bitwright import ranges
from bitwright.devices import parse_threads
from bitwright.engines import Serving
from bitwright.errors import BudgetError, ObjectiveError, UserError
from bitwright.methods import AUTO
from bitwright.pipeline.channel_order import order_channels
from bitwright.pipeline.planning.candidates import budget_bytes
from bitwright.pipeline.planning.cost_limits import parse_conditions
from bitwright.pipeline.searching.search import Search
from bitwright.ranges import Range
from tests.commands import Cli
from tests.sentences import sentence

KNOWN = [value for value in vars(ranges).values() if isinstance(value, Range)]


def ordered(**words: Any) -> object:
    return order_channels("no model", "self", Path("nowhere"), **words)


def automatic(**words: Any) -> object:
    return Search(AUTO, **words)


def settings(**words: Any) -> object:
    return bw.Settings("no model", **words)


@pytest.mark.parametrize(
    ("make", "words", "said"),
    [
        (settings, {"n_calibration": 1}, "calibration sequences (1) --calibration-sequences"),
        (settings, {"n_calibration": 2**63}, "calibration sequences (9,223,372,036,854,775,808) smaller"),
        (settings, {"n_held_out": 1}, "held-out sequences (1) --held-out-sequences"),
        (settings, {"sequence_length": 1}, "tokens of a sequence (1) larger"),
        (settings, {"sequence_length": 2**63}, "tokens of a sequence (9,223,372,036,854,775,808) smaller"),
        (settings, {"cache_length": 1}, "for the cache (1)"),
        (settings, {"seed": -1}, "seed (-1) larger"),
        (settings, {"seed": 2**63}, "seed (9,223,372,036,854,775,808) smaller"),
        (Serving, {"context": 0}, "context (0)"),
        (Serving, {"context": 2**63}, "context (9,223,372,036,854,775,808)"),
        (Serving, {"context": 1, "parallel": -3}, "parallel sequences (-3)"),
        (automatic, {"evaluations": -1}, "evaluations (-1)"),
        (automatic, {"tokens": nan}, "tokens (nan)"),
        (automatic, {"seconds": -0.5}, "time of a search (-0.5) --minutes"),
        (ordered, {"n_sequences": 0}, "calibration sequences (0)"),
        (ordered, {"length": 1}, "tokens of a sequence (1)"),
        (ordered, {"seed": 2**64}, "seed (18,446,744,073,709,551,616)"),
        (parse_threads, {"text": "0"}, "threads (0)"),
        (parse_threads, {"text": "²"}, "²"),
    ],
)
def test_a_number_outside_its_range_is_a_sentence(make: Callable[..., object], words: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        make(**words)
    sentence(refused.value, *re.split(r" \(|\) ?", said))


def test_the_ends_of_a_range_are_in_it() -> None:
    for known in KNOWN:
        known.require(known.least)
        known.require(known.most)
        for outside in (known.least - 1, nan, *([known.most + 1] if known.most < inf else [])):
            with pytest.raises(UserError):
                known.require(outside)


def test_the_ends_that_a_run_depends_on_can_be_used() -> None:
    assert bw.Settings("m", n_calibration=2, n_held_out=2, sequence_length=2, seed=2**31 - 1).seed == 2**31 - 1
    assert Search(AUTO, evaluations=0, tokens=inf, seconds=0.0).tokens == inf


@pytest.mark.parametrize("unit", ["MB", "bpw"])
def test_a_budget_above_all_files_is_a_sentence(unit: str) -> None:
    with pytest.raises(BudgetError) as refused:
        budget_bytes(bw.parse_budget("1" + "0" * 400 + unit), n_weights=8, original_bytes=1_000_000)
    sentence(refused.value, "000,000 MB", "1.0 MB")
    with pytest.raises(BudgetError):
        bw.parse_budget("1" * 5000 + unit)


def test_a_ceiling_without_end_is_none() -> None:
    with pytest.raises(ObjectiveError) as refused:
        parse_conditions(["kl=1e999"], None)
    sentence(refused.value, "kl=1e999")


@pytest.mark.parametrize("command", ["fit", "search", "plan", "import", "permute-channels", "proxies", "memory", "profile"])
def test_help_tells_every_range(bitwright: Cli, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", bitwright(command, "--help").out).split())
    options = set(re.findall(r"--[a-z-]+", shown))
    named = [known for known in KNOWN if known.option in options]
    assert named
    for option in {known.option for known in named}:
        assert any(str(known) in shown for known in named if known.option == option), option
