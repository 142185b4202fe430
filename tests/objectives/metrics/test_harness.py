"""Task errors against lm-eval itself, where it is installed."""

import json
from dataclasses import astuple
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Model
from bitwright.errors import LibraryError, ObjectiveError
from bitwright.objectives import ModelObjective
from bitwright.objectives.metrics.harness import Harness
from bitwright.objectives.metrics.task_error import TaskError, TaskErrorByLength, likelihoods
from bitwright.objectives.metrics.tasks import read_task
from bitwright.testing.objective_contract import ModelContract
from tests.measuring import random_tokens
from tests.sentences import sentence

INSTALLED = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is optional")
# what lm-eval and its own dependencies warn of is not this project's
LENIENT = pytest.mark.filterwarnings("default")
TASK = """
task: quiz
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list: [{{metric: acc, higher_is_better: true}}, {{metric: acc_norm, higher_is_better: true}}]
"""
WORDS = ["bears", "a very long porridge", "12 bowls", "add", "the café's menu", "x + y"]


@pytest.fixture
def quiz(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task file whose right answers are the model's own, but for every fourth."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    items = [{"query": f"Question: {a} {b}?", "choices": ["x", "q", "z", b]} for a in WORDS for b in WORDS]
    for i, item in enumerate(items):
        found = likelihoods(tied, [(f"{item['query']}\nAnswer:", f" {choice}") for choice in item["choices"]])
        item["gold"] = (int(np.argmax([likelihood.nats for likelihood in found])) + (i % 4 == 3)) % 4
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    (tmp_path / "quiz.yaml").write_text(TASK.format(file=tmp_path / "quiz.jsonl"), encoding="utf-8")
    return tmp_path / "quiz.yaml"


@INSTALLED
@LENIENT
class TestHarnessError(ModelContract):
    @pytest.fixture(autouse=True)
    def _quiz(self, quiz: Path) -> None:
        self.task = str(quiz)

    def objective(self, model: Model) -> ModelObjective:
        return Harness(self.task).prepare(model, random_tokens(1, 8))


@INSTALLED
@LENIENT
def test_agrees_with_the_project_s_own_scoring(tied: Model, quiz: Path) -> None:
    own, text = read_task(quiz.with_suffix(".jsonl")), random_tokens(1, 8)
    for metric, expected in (("acc", TaskError(own).evaluate_model(tied)), ("acc_norm", TaskErrorByLength(own).evaluate_model(tied))):
        found = Harness(str(quiz), metric).prepare(tied, text).evaluate_model(tied)
        assert astuple(found) == pytest.approx(astuple(expected))


@INSTALLED
@LENIENT
def test_prints_nothing(tied: Model, quiz: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Harness(str(quiz)).prepare(tied, random_tokens(1, 8)).evaluate_model(tied)
    assert capfd.readouterr() == ("", "")


@INSTALLED
@LENIENT
@pytest.mark.parametrize(("task", "metric", "told"), [("quiz.yaml", "f1", "acc, acc_norm"), ("absent.yaml", "acc", "absent.yaml")])
def test_an_unknown_metric_or_task_is_refused(tied: Model, quiz: Path, task: str, metric: str, told: str) -> None:
    objective = Harness(str(quiz.with_name(task)), metric).prepare(tied, random_tokens(1, 8))
    with pytest.raises(ObjectiveError) as refused:
        objective.evaluate_model(tied)
    sentence(refused.value, told)


def test_without_the_library_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.objectives.metrics.harness.find_spec", lambda name: None)
    with pytest.raises(LibraryError) as refused:
        Harness("arc_easy")
    sentence(refused.value, "lm-eval:arc_easy", "bitwright[eval]")
