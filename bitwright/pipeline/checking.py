"""Load what was built in the engine that it is for, and compare it with what was promised."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model
from bitwright.errors import UserError
from bitwright.pipeline.checking_checkpoint import check_checkpoint
from bitwright.pipeline.checking_llama_cpp import check_in_llama_cpp
from bitwright.pipeline.checking_native import check_native
from bitwright.pipeline.promises import Check
from bitwright.progress import Progress
from bitwright.spaces import TARGETS, VLLM, Plan

N_CONTEXTS = 16
_CONTEXT_TOKENS = 128  # the longest context; llama.cpp is opened with room for twice as many
_CHECKS = {"gguf": check_in_llama_cpp, "native": check_native}


def check(model: Model, plan: Plan, path: Path, *, contexts: list[NDArray[np.int64]], prompt: str, engine_python: str, progress: Progress) -> Check:
    """Compare what lies at `path` with its plan, over `contexts`, each `(length,)` token ids. `model` has its tensors as the target does.

    `engine_python` is the Python of an environment that has vLLM, this one where it is empty and has it.

    Raises:
        ModelError: it cannot be read, by us or by the engine.
        UserError: an `engine_python` is named that does not exist, or for another target than vLLM.
    """
    if engine_python and plan.target != VLLM.name:
        raise UserError(f"Only {VLLM.name} is run by another Python; a plan for {plan.target} is checked by this one: leave out --engine-python.")
    container = TARGETS[plan.target].container
    if container == "compressed-tensors":
        return check_checkpoint(model, plan, path, contexts=contexts, prompt=prompt, engine_python=engine_python, progress=progress)
    return _CHECKS[container](model, plan, path, contexts=contexts, prompt=prompt, progress=progress)


def prefixes(sequences: NDArray[np.int64], n: int) -> list[NDArray[np.int64]]:
    """`n` contexts of different lengths, none above 128, out of `sequences` `(n_sequences, length)`."""
    length = min(sequences.shape[1], _CONTEXT_TOKENS)
    return [sequences[i % len(sequences)][: max(2, length * (i % 8 + 1) // 8 - i // len(sequences))] for i in range(n)]
