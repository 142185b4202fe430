"""Load what was built in the engine that it is for, and compare it with what was promised."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Model
from bitwright.engines.check_result import Check
from bitwright.engines.compressed_tensors.check import check_checkpoint
from bitwright.engines.compressed_tensors.target import VLLM
from bitwright.engines.compressed_tensors.vllm import python_of_vllm
from bitwright.engines.llama_cpp.check import check_in_llama_cpp
from bitwright.engines.native.check import check_native
from bitwright.engines.targets import TARGETS
from bitwright.errors import UserError
from bitwright.progress import Progress
from bitwright.spaces import Plan
from bitwright.written_files import require_as_written

N_CONTEXTS = 16
_CONTEXT_TOKENS = 128  # the longest context; llama.cpp is opened with room for twice as many
_CHECKS = {"gguf": check_in_llama_cpp, "native": check_native}


def check(model: Model, plan: Plan, path: Path, *, contexts: list[NDArray[np.int64]], prompt: str, engine_python: str, progress: Progress) -> Check:
    """Compare what lies at `path` with its plan, over `contexts`, each `(length,)` token ids. `model` has its tensors as the target does.

    `engine_python` is the Python of an environment that has vLLM, this one where it is empty and has it.

    Raises:
        ModelError: it cannot be read, by us or by the engine.
        BrokenPromiseError: a file is not, to the bit, what was built, by the record beside it.
        UserError: see `require_engine_python`.
    """
    require_engine_python(plan.target, engine_python)
    require_as_written(path)
    container = TARGETS[plan.target].container
    if container == "compressed-tensors":
        return check_checkpoint(model, plan, path, contexts=contexts, prompt=prompt, engine_python=engine_python, progress=progress)
    return _CHECKS[container](model, plan, path, contexts=contexts, prompt=prompt, progress=progress)


def require_engine_python(target: str, engine_python: str) -> None:
    """Refuse to run an engine by a Python that cannot; none is named where it is empty.

    Raises:
        UserError: it does not exist, or the target is another than vLLM.
    """
    if engine_python and target != VLLM.name:
        raise UserError(f"Only {VLLM.name} is run by another Python; what is for {target} is checked by this one: leave out --engine-python.")
    python_of_vllm(engine_python)


def prefixes(sequences: NDArray[np.int64], n: int) -> list[NDArray[np.int64]]:
    """`n` contexts of different lengths, none above 128, out of `sequences` `(n_sequences, length)`."""
    length = min(sequences.shape[1], _CONTEXT_TOKENS)
    return [sequences[i % len(sequences)][: max(2, length * (i % 8 + 1) // 8 - i // len(sequences))] for i in range(n)]
