"""Healing: less divergence at the same bytes, shipped as it was measured, and refused in a sentence where it cannot be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitwright as bw
from bitwright.errors import UserError
from bitwright.methods.by_name import method_named
from bitwright.pipeline import Run, Search
from bitwright.pipeline.finishing.healing import Healing
from bitwright.pipeline.finishing.steps import step_named
from bitwright.report import Shipping
from bitwright.spaces import Healed, Kept
from tests.runs import small
from tests.sentences import sentence

FORMATS = ("INT2_G32", "INT3_G32", "INT2_R8", "INT3_2OF4")
BUDGET = bw.parse_budget("240KB")
STEP = "heal:tokens=1536"


@pytest.fixture(scope="module")
def run(llama_96: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("healing")
    (folder / "text.txt").write_text(" ".join(np.random.default_rng(0).permutation([f"word{i} and so on" for i in range(400)])), encoding="utf-8")
    settings = small(
        llama_96, target="native", formats=FORMATS, calibration=str(folder / "text.txt"), sensitivity="importance", skip=("token_embd*", "output*")
    )
    return bw.pipeline.search(settings, folder / "run", n_points=2, by=Search(method_named("auto"), evaluations=0))


@pytest.mark.slow
def test_healing_lowers_the_divergence_and_is_built_as_it_was_measured(run: Run, tmp_path: Path) -> None:
    before, _ = bw.plan(run, BUDGET)
    plan, summary = bw.plan(run, BUDGET, steps=(STEP,))
    told = summary.shipping
    assert isinstance(told, Shipping)
    assert summary.within_bits is not None
    for size_bytes, nats in zip(summary.within_bits.sizes_bytes, summary.within_bits.nats, strict=True):
        assert summary.front_nats[summary.front_sizes_bytes <= size_bytes].min() <= nats * (1 + 1e-9), "everything is never above bits"
    assert plan.steps == (Healed(tokens=1536),)
    assert isinstance(plan.rounding, Kept)
    assert plan.size_bytes <= 240_000
    assert plan.divergence.nats_per_token < 0.97 * before.divergence.nats_per_token
    assert bw.verify(plan, bw.build(plan, tmp_path / "model")).broken == ()
    assert bw.plan(bw.open_run(run.folder), BUDGET, steps=(STEP,))[0] == plan  # nothing is trained again


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (("heal",), {"calibration": "self"}, ("trains on text", "--calibration")),
        (("heal",), {"target": "llama.cpp", "formats": ("Q4_0",)}, ("native", "llama.cpp")),
        (("heal", "heal:tokens=9"), {}, ("once", "heal")),
        (("heal:tokens=0",), {}, ("tokens=0", "heal:tokens=")),
        (("heal:ridge=2",), {}, ("ridge=2", "heal:tokens=")),
        (("cure",), {}, ("cure", "heal")),
    ],
)
def test_healing_that_cannot_be_is_refused(words: tuple[str, ...], settings: dict[str, Any], said: tuple[str, ...], llama_96: Path) -> None:
    with pytest.raises(UserError) as caught:
        small(llama_96, **{"target": "native", "formats": FORMATS, "calibration": __file__, "steps": words, **settings})
    sentence(caught.value, *said)


def test_a_step_is_read_as_it_is_written() -> None:
    assert step_named("heal") == Healing()
    assert step_named(Healing(512).words) == Healing(512)
