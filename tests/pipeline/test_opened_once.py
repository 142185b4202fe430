"""Opening a model once in a `fit`; a continued run counts nothing twice and believes nothing unread."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoTokenizer

import bitwright as bw
from bitwright.errors import BrokenPromiseError, PlanError, RunError
from bitwright.pipeline.verbs import Fitted
from tests.runs import BRIEF, small
from tests.sentences import sentence

pytestmark = pytest.mark.slow

BUDGET = "9.5bpw"
Opened = Counter[str]


def settings_of(folder: Path) -> bw.Settings:
    return small(folder / "model", n_calibration=8)


def fitted(folder: Path) -> Fitted:
    return bw.fit(settings_of(folder), bw.parse_budget(BUDGET), folder / "run", by=BRIEF)


@pytest.fixture(scope="module")
def first(llama_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Fitted, Opened]:
    """A fit of a model that was never opened before, in a folder with the model, and how often its configuration and tokenizer were read."""
    folder, opened = tmp_path_factory.mktemp("once"), Counter[str]()
    shutil.copytree(llama_tied, folder / "model")
    with pytest.MonkeyPatch.context() as patched:
        for kind in (AutoConfig, AutoTokenizer):
            patched.setattr(kind, "from_pretrained", _counted(kind, opened))
        made = fitted(folder)
    return folder, made, opened


def _counted(kind: Any, opened: Opened) -> Any:
    original = kind.from_pretrained

    def read(path: Any, *given: Any, **named: Any) -> Any:
        opened[kind.__name__] += 1
        return original(path, *given, **named)

    return read


@pytest.fixture
def run(first: tuple[Path, Fitted, Opened], tmp_path: Path) -> Path:
    """A copy of the folder; the run in it is of the model in it."""
    return Path(shutil.copytree(first[0], tmp_path / "copy"))


def test_a_fit_reads_the_configuration_and_the_tokenizer_once(first: tuple[Path, Fitted, Opened]) -> None:
    assert first[2] == {"AutoConfig": 1, "AutoTokenizer": 1}


def test_a_run_that_is_gone_on_with_counts_its_tokens_once(first: tuple[Path, Fitted, Opened], run: Path) -> None:
    before = {stage.name: stage.n_tokens for stage in first[1].summary.stages}
    again = fitted(run)
    assert before["searching"] > 0
    assert {stage.name: stage.n_tokens for stage in again.summary.stages}["searching"] == before["searching"]
    assert again.plan.formats == first[1].plan.formats
    assert again.model.read_bytes() == first[1].model.read_bytes()


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_an_importance_matrix_that_was_changed_is_collected_again(first: tuple[Path, Fitted, Opened], run: Path) -> None:
    imatrix = run / "run" / "imatrix.gguf"
    before = imatrix.read_bytes()
    flip(imatrix, len(before) - 8)
    with pytest.raises(RunError) as refused:
        bw.plan(bw.open_run(run / "run"), bw.parse_budget(BUDGET))
    sentence(refused.value, imatrix, "changed")
    assert fitted(run).model.read_bytes() == first[1].model.read_bytes()
    assert imatrix.read_bytes() == before


def test_a_built_file_of_which_a_bit_is_another_fails_its_check(first: tuple[Path, Fitted, Opened], run: Path) -> None:
    plan = bw.read_plan(run / "run" / "plan.json")
    flip(run / "run" / "model.gguf", -9)
    with pytest.raises(BrokenPromiseError) as refused:
        bw.verify(plan, run / "run" / "model.gguf")
    sentence(refused.value, run / "run" / "model.gguf", ".bitwright-files")


def test_another_configuration_is_another_model(run: Path) -> None:
    """The weights are the same: what differs is named, by `build` and by a run that is gone on with."""
    plan = bw.read_plan(run / "run" / "plan.json")
    plan = plan.model_copy(update={"model": plan.model.model_copy(update={"source": str(run / "model")})})
    config = run / "model" / "config.json"
    said = json.loads(config.read_text(encoding="utf-8"))
    before, said["rms_norm_eps"] = said["rms_norm_eps"], 0.01
    config.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(PlanError) as refused:
        bw.build(plan, run / "m.gguf")
    sentence(refused.value, f"rms_norm_eps is {before} in the plan's model and 0.01 in {run / 'model'}")
    with pytest.raises(RunError) as stopped:
        fitted(run)
    sentence(stopped.value, f"model's rms_norm_eps was {before} and is now 0.01")
    assert not (run / "m.gguf").exists()
