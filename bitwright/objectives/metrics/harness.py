"""Tasks of lm-eval, the evaluation harness of EleutherAI (Gao et al., 2024), run on the model in memory.

The library is optional: `pip install bitwright[eval]`. Its tasks download their data from the Hugging Face hub unless their YAML file names local
data.
"""

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from math import inf
from typing import Any

from bitwright.compress import Model
from bitwright.errors import LibraryError, ObjectiveError
from bitwright.objectives.measurement import Estimate
from bitwright.objectives.objective import ModelObjective, Preparation
from bitwright.objectives.text.tokens import Tokens

_ROWS_AT_ONCE = 8
_RESAMPLES = 100  # for the standard errors of metrics that have no formula; the others take none


@dataclass(frozen=True)
class Harness(Preparation):
    """Metric of one lm-eval task, e.g. `Harness("arc_easy")`; `task` is the name of a task of lm-eval, or the path of a task's YAML file.

    Raises:
        LibraryError: lm-eval is not installed.
    """

    task: str
    metric: str = "acc"

    def __post_init__(self) -> None:
        if find_spec("lm_eval") is None:
            raise LibraryError(f"The objective '{self.name}' needs lm-eval, which is not installed: run `pip install 'bitwright[eval]'`.")

    @property
    def name(self) -> str:
        """Return e.g. `lm-eval:arc_easy`, with `:metric` appended unless it is accuracy."""
        return f"lm-eval:{self.task}" if self.metric == "acc" else f"lm-eval:{self.task}:{self.metric}"

    def prepare(self, original: Model, tokens: Tokens) -> "HarnessError":  # noqa: ARG002
        """Index the tasks of lm-eval once, which takes half a minute; neither the model nor the text is used."""
        is_file = self.task.endswith((".yaml", ".yml"))
        with _quiet():
            return HarnessError(self, importlib.import_module("lm_eval.tasks").TaskManager(include_defaults=not is_file))


@dataclass(frozen=True, eq=False)
class HarnessError(ModelObjective):
    """Metric and standard error as lm-eval reports them; 1 − metric where higher is better, as for accuracy."""

    harness: Harness
    tasks: Any
    unit = "1 − metric"

    @property
    def name(self) -> str:
        """Return e.g. `lm-eval:arc_easy`."""
        return self.harness.name

    def evaluate_model(self, model: Model) -> Estimate:
        """Run the task in lm-eval, which is told not to seed global generators."""
        metric, results = self.harness.metric, self._results(model)
        (task, found), *others = results["results"].items()
        if others or f"{metric},none" not in found:
            known = ", ".join(sorted(results["higher_is_better"][task])) or "several tasks"
            raise ObjectiveError(f"An objective must be one metric of one task; {self.name} has no '{metric}', but {known}: name one after the task.")
        value, error = float(found[f"{metric},none"]), found.get(f"{metric}_stderr,none")
        more_is_better = results["higher_is_better"][task][metric]
        return Estimate(1 - value if more_is_better else value, float(error) if isinstance(error, float) else inf)

    def _results(self, model: Model) -> dict[str, Any]:
        seeds = {"random_seed": None, "numpy_random_seed": None, "torch_random_seed": None}
        try:
            with _quiet():
                wrap = importlib.import_module("lm_eval.models.huggingface").HFLM
                evaluate = importlib.import_module("lm_eval").simple_evaluate
                wrapped = wrap(model.module, tokenizer=model.tokenizer, backend="causal", batch_size=_ROWS_AT_ONCE, device=str(model.device))
                settings = {"task_manager": self.tasks, "bootstrap_iters": _RESAMPLES, "log_samples": False}
                found: dict[str, Any] = evaluate(wrapped, tasks=[self.harness.task], **settings, **seeds)
        except Exception as error:  # a task is third-party code and data: it can fail in any way
            message = " ".join(f"{type(error).__name__}: {error}".split())
            raise ObjectiveError(f"lm-eval must be able to run '{self.harness.task}'; it cannot ({message}): check its name and its data.") from error
        return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the progress bars and warnings that lm-eval prints."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        logging.disable(level)
