from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model
from bitwright.errors import ObjectiveError
from bitwright.objectives import Estimate, ModelObjective
from bitwright.objectives.metrics.user_function import UserFunction, read_function
from tests.objectives.objective_contract import ModelContract
from tests.sentences import sentence


def weight_norm(model: Model) -> tuple[float, float]:
    return float(model.module.get_input_embeddings().weight.norm()), 0.0


class TestUserFunction(ModelContract):
    def objective(self, model: Model) -> ModelObjective:
        return UserFunction(weight_norm, name="norm", unit="norm")


@pytest.mark.parametrize("given", [(2, 1), (2.0, 1.0), [np.float32(2), np.float64(1)], (np.int64(2), True)])
def test_two_numbers_are_an_estimate(tied: Model, given: object) -> None:
    assert UserFunction(lambda model: given).evaluate_model(tied) == Estimate(2.0, 1.0)


def test_the_error_may_be_unknown(tied: Model) -> None:
    assert UserFunction(lambda model: (2, inf)).evaluate_model(tied) == Estimate(2.0, inf)


@pytest.mark.parametrize(
    "given", [None, 2.0, (2.0,), (1, 2, 3), ("2", "1"), (nan, 1), (inf, 1), (2, nan), (2, -1), torch.tensor([2.0, 1.0]), {"value": 2}, "21"]
)
def test_any_other_result_is_refused(tied: Model, given: object) -> None:
    with pytest.raises(ObjectiveError) as refused:
        UserFunction(lambda model: given, name="speed").evaluate_model(tied)
    sentence(refused.value, "speed", str(given)[:6] if not isinstance(given, torch.Tensor) else "tensor")


def test_an_exception_is_reported_in_one_sentence(tied: Model) -> None:
    def broken(model: Model) -> tuple[float, float]:
        raise RuntimeError("no\n  such device")

    with pytest.raises(ObjectiveError) as refused:
        UserFunction(broken, name="speed").evaluate_model(tied)
    sentence(refused.value, "speed", "RuntimeError: no such device")
    assert isinstance(refused.value.__cause__, RuntimeError)


def test_an_interrupt_is_not_an_error(tied: Model) -> None:
    def interrupted(model: Model) -> tuple[float, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        UserFunction(interrupted).evaluate_model(tied)


# --- from a file


def test_a_function_of_a_file(tied: Model, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def count(model):\n    return len(model.tensors), 0\n", encoding="utf-8")
    objective = read_function(path, "count")
    assert objective.name == f"{path}:count"
    assert objective.evaluate_model(tied) == Estimate(len(tied.tensors), 0)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("mine.py", "def other(model): ...", "no function 'count'"),
        ("mine.py", "count = 3", "no function 'count'"),
        ("mine.py", "def count(model) return 1", "SyntaxError"),
        ("mine.py", "import nothing_of_that_name", "ModuleNotFoundError"),
        ("mine.txt", "def count(model): ...", "Python file"),
        ("absent.py", None, "No such file or directory"),
    ],
)
def test_a_file_without_it_is_refused(tmp_path: Path, name: str, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ObjectiveError) as refused:
        read_function(tmp_path / name, "count")
    sentence(refused.value, told, tmp_path / name)
