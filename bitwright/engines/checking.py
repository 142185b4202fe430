"""Load what was built in the engine that it is for, and compare it with what was promised."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model
from bitwright.engines.by_name import engine_named
from bitwright.engines.check_request import CheckRequest
from bitwright.engines.check_result import Check
from bitwright.progress import Progress
from bitwright.spaces import Plan
from bitwright.written_files import NOT_WRITTEN, RECORD, require_as_written, written

N_CONTEXTS = 16
_LENGTHS = 4
N_TEXTS = N_CONTEXTS // _LENGTHS  # what the contexts are taken from
_CONTEXT_TOKENS = 128  # the longest context; llama.cpp is opened with room for twice as many


def check(model: Model, plan: Plan, path: Path, *, contexts: list[NDArray[np.int64]], prompt: str, engine_python: str, progress: Progress) -> Check:
    """Compare what lies at `path` with its plan, over `contexts`, each `(length,)` token ids. `model` has its tensors as the target does.

    `engine_python` is the Python of an environment that has vLLM, this one where it is empty and has it.

    Raises:
        ModelError: it cannot be read, by us or by the engine.
        BrokenPromiseError: a file is not, to the bit, what was built, by the record beside it.
        UserError: see `Engine.require_python`.
    """
    engine = engine_named(plan.target)
    engine.require_python(engine_python)
    for file in engine.container(plan.model.source).files(path):
        require_as_written(file)
    return engine.check(
        CheckRequest(model=model, plan=plan, path=path, contexts=contexts, prompt=prompt, engine_python=engine_python, progress=progress)
    )


def digest_row(path: Path) -> tuple[str, str, str]:
    """Return the row of a checked model's table, as in `Check.rows`, that says whether `check` compared its files with a record."""
    recorded = written(path) != NOT_WRITTEN
    return "SHA-256 of every file", "as written", "as written" if recorded else f"not compared: {RECORD} beside it has no record of it"


def prefixes(sequences: NDArray[np.int64], n: int) -> list[NDArray[np.int64]]:
    """Return `n` contexts, none above 128 tokens, out of `sequences` `(n_sequences, length)`: the first of them at four lengths each, or more where
    there are few, so that a text is computed once for all of its contexts.
    """
    length, n_texts = min(sequences.shape[1], _CONTEXT_TOKENS), min(len(sequences), -(-n // _LENGTHS))
    n_lengths = -(-n // n_texts)
    return [sequences[i % n_texts][: max(2, length * (i // n_texts + 1) // n_lengths)] for i in range(n)]
