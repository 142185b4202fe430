"""Objectives by name, as on the command line: `kl,flips,worst5%,error:piqa.jsonl,active-bytes`."""

import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from bitwright.errors import ObjectiveError
from bitwright.objectives.cost import CostObjective
from bitwright.objectives.metrics.effective_rank import EffectiveRank
from bitwright.objectives.metrics.flips import Flips
from bitwright.objectives.metrics.harness import Harness
from bitwright.objectives.metrics.jensen_shannon import ClampedJensenShannon, JensenShannon
from bitwright.objectives.metrics.kullback_leibler import KullbackLeibler, TopKullbackLeibler
from bitwright.objectives.metrics.perplexity import Perplexity
from bitwright.objectives.metrics.rank_correlation import Kendall, Spearman
from bitwright.objectives.metrics.router_shift import RouterShift
from bitwright.objectives.metrics.task_error import TaskError, TaskErrorByLength
from bitwright.objectives.metrics.tasks import read_task
from bitwright.objectives.metrics.user_function import read_function
from bitwright.objectives.metrics.worst_slice import WorstSlice
from bitwright.objectives.objective import ModelObjective, Preparation, TokenObjective
from bitwright.objectives.text.words import between_commas, is_file
from bitwright.plugins import Parts

#: an objective, or a `Preparation` that makes one from the original model
NamedObjective = TokenObjective | ModelObjective | Preparation | CostObjective

_BY_NAME: tuple[TokenObjective | Preparation, ...] = (
    KullbackLeibler(),
    JensenShannon(),
    ClampedJensenShannon(),
    TopKullbackLeibler(),
    Perplexity(),
    Flips(),
    WorstSlice(),
    Kendall(),
    Spearman(),
    EffectiveRank(),
    RouterShift(),
)
_KNOWN: dict[str, NamedObjective] = {**{objective.name: objective for objective in _BY_NAME}, **{cost.value: cost for cost in CostObjective}}
#: those without a number or a file in their name, with those of other packages
OBJECTIVE_PARTS = Parts[NamedObjective](
    "An objective must be a known one",
    "bitwright.objectives",
    (TokenObjective, ModelObjective, Preparation, CostObjective),
    _KNOWN,
    ObjectiveError,
)
_PATTERNS: tuple[tuple[str, Callable[..., NamedObjective]], ...] = (
    (r"top(\d+)-kl", lambda k: TopKullbackLeibler(int(k))),
    (r"top(\d+)-kendall", lambda k: Kendall(int(k))),
    (r"top(\d+)-spearman", lambda k: Spearman(int(k))),
    (r"worst(\d+(?:\.\d+)?)%", lambda percent: WorstSlice(float(percent))),
    (r"error:(.+)", lambda path: TaskError(read_task(Path(path)))),
    (r"length-error:(.+)", lambda path: TaskErrorByLength(read_task(Path(path)))),
    (r"lm-eval:([^:]+)", Harness),
    (r"lm-eval:([^:]+):([^:]+)", Harness),
    (r"(.+\.py):(\w+)", lambda path, name: read_function(Path(path), name)),
)
_OPEN = ("error:FILE", "length-error:FILE", "lm-eval:TASK", "FILE.py:FUNCTION")


def parse_objectives(text: str) -> tuple[NamedObjective, ...]:
    """Parse comma-separated objectives (file names may contain commas); the numbers in `top10-kl` and `worst5%` may be changed.

    Raises:
        ObjectiveError: a name is unknown, repeated or has an impossible number, or there is none.
        TextError: the file of a task cannot be used.
        LibraryError: an objective needs a library that is not installed.
    """
    words = between_commas(text, _names_file)
    if not words:
        raise ObjectiveError(f"At least one objective must be named; '{text}' names none: choose from {_choice()}.")
    repeated = [word for word in words if words.count(word) > 1]
    if repeated:
        raise ObjectiveError(
            f"Each objective must be named once; '{repeated[0]}' is named {words.count(repeated[0])} times in '{text}': remove the repetition."
        )
    return tuple(map(_named, words))


def _named(word: str) -> NamedObjective:
    if word in OBJECTIVE_PARTS.names:
        return OBJECTIVE_PARTS.named(word)
    for pattern, make in _PATTERNS:
        if match := re.fullmatch(pattern, word):
            try:
                return make(*match.groups())
            except ValueError as error:
                raise ObjectiveError(f"The number in an objective's name must be possible; '{word}' is not, since {error}: change it.") from error
    close = get_close_matches(word, OBJECTIVE_PARTS.names, n=1)
    raise ObjectiveError(f"No objective is called '{word}': " + (f"did you mean {close[0]}?" if close else f"choose from {_choice()}."))


def _names_file(word: str) -> bool:
    function = re.fullmatch(r"(.+\.py):\w+", word)
    return is_file(function[1] if function else word.partition(":")[2])


def _choice() -> str:
    return ", ".join((*OBJECTIVE_PARTS.names, *_OPEN))
