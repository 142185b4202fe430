"""A mixture of experts fitted, built and checked as a native checkpoint, with an expert dropped; and promises that are broken."""

from dataclasses import replace
from pathlib import Path

import pytest

import bitwright as bw
from bitwright.engines.native.check import NativeCheck
from tests.runs import BRIEF, small

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fitted(tiny_mixtral: Path, tmp_path_factory: pytest.TempPathFactory) -> bw.pipeline.Fitted:
    settings = small(tiny_mixtral, target="native", formats=("INT2_G32", "INT4_G32", "INT8_G32"), n_calibration=4, n_held_out=2)
    return bw.fit(settings, bw.parse_budget("8bpw"), tmp_path_factory.mktemp("native") / "run", by=BRIEF)


def test_what_was_built_keeps_every_promise(fitted: bw.pipeline.Fitted) -> None:
    check = fitted.check
    assert isinstance(check, NativeCheck)
    assert check.broken == ()
    assert {row[0] for row in check.rows} >= {"size", "formats", "weights in memory", "tokenizer", "decoding"}
    assert check.checkpoint.in_torch.nats_per_token == pytest.approx(check.checkpoint.in_engine.nats_per_token, abs=1e-4)
    assert check.engine in "".join(" ".join(row) for row in check.rows)


def test_it_is_checked_again_from_the_plan_alone(fitted: bw.pipeline.Fitted) -> None:
    assert bw.verify(fitted.plan, fitted.model).broken == ()


def test_an_expert_may_be_dropped_by_hand(fitted: bw.pipeline.Fitted, tmp_path: Path) -> None:
    gone = {name: "DROP" for name in fitted.plan.formats if name.startswith("model.layers.1.") and ".experts.3." in name}
    space = bw.open_run(fitted.report.parent).space
    sizes = {
        tensor.name: {form.name: form.size_bytes(tensor.shape) for form in space.formats if form.fits(tensor.shape)}
        for unit in space.units
        for tensor in unit.tensors
    }
    saved = sum(sizes[name][fitted.plan.formats[name]] for name in gone)
    plan = fitted.plan.model_copy(update={"formats": fitted.plan.formats | gone, "size_bytes": fitted.plan.size_bytes - saved})
    bw.build(plan, tmp_path / "model")
    assert gone
    assert bw.verify(plan, tmp_path / "model").broken == ()


def test_each_broken_promise_is_a_sentence(fitted: bw.pipeline.Fitted) -> None:
    check = fitted.check
    assert isinstance(check, NativeCheck)
    for changes, words in (({"memory_bytes": 10**9}, "in memory"), ({"tokenizes_alike": False}, "tokenizer")):
        assert words in replace(check, **changes).broken[0]


def test_the_matrices_of_an_expert_may_have_formats_of_their_own(tiny_mixtral: Path, tmp_path: Path) -> None:
    settings = small(tiny_mixtral, target="native-matrices", formats=("INT2_G32", "INT4_G32", "INT8_G32"), n_calibration=4, n_held_out=2)
    fitted = bw.fit(settings, bw.parse_budget("8bpw"), tmp_path / "run", by=BRIEF)
    experts: dict[str, set[str]] = {}
    for name, form in fitted.plan.formats.items():
        if ".experts." in name:
            experts.setdefault(name.removesuffix(".weight").rpartition(".")[0], set()).add(form)
    assert fitted.check.broken == ()
    assert any(len(forms) > 1 for forms in experts.values())
