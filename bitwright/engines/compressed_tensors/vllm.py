"""Checkpoints in vLLM itself, which runs in a process and an environment of its own: next-token distributions and generation."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import ModelError, UserError

_PROGRAM = Path(__file__).with_name("vllm_worker.py")
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "PYTHONSAFEPATH": "1",  # the modules beside the program are none of the engine's
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
_CPU_CACHE = {"VLLM_CPU_KVCACHE_SPACE": "1"}  # GiB; the engine would take most of the memory
_OURS = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
_ANSWER_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Answer:
    """Answer of vLLM of a `version`: log-probabilities `(n_contexts, n_vocabulary)`, and the token ids it wrote after the prompt."""

    version: str
    log_probabilities: NDArray[np.float64]
    written: NDArray[np.int64]


def python_of_vllm(named: str) -> str:
    """Return the Python that has vLLM: the one `named`, or this one if it has it, else nothing.

    Raises:
        UserError: there is no such program, or it is no Python that finds vLLM.
    """
    if not named:
        return sys.executable if importlib.util.find_spec("vllm") else ""
    if not Path(named).is_file():
        raise UserError(
            f"The engine's Python must be that of an environment with vLLM; there is no file {named}: give --engine-python its bin/python."
        )
    if not _finds_vllm(str(Path(named).absolute())):
        raise UserError(f"The engine's Python must be that of an environment with vLLM; {named} finds none: pip install vllm there, or name another.")
    return named


@cache
def _finds_vllm(python: str) -> bool:
    """Return whether a program is a Python that has vLLM, without loading it."""
    asked = [python, "-c", "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"]
    try:
        ended = subprocess.run(asked, env=_around(), capture_output=True, check=False, timeout=_ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def _around() -> dict[str, str]:
    """Return the environment without what belongs to this Python."""
    return {key: value for key, value in os.environ.items() if key not in _OURS}


def in_vllm(python: str, folder: Path, *, dtype: str, contexts: list[list[int]], prompt: list[int], n_tokens: int) -> Answer:
    """Load the checkpoint in `folder` with the vLLM of that `python`, predict the token after each of `contexts`, and go on after `prompt`; on a
    processor in floats of type `dtype`, on a GPU in those that the checkpoint asks for.

    Raises:
        ModelError: vLLM is not there, or does not load or run the checkpoint.
    """
    with tempfile.TemporaryDirectory(prefix="bitwright-") as scratch:
        asked, answer = Path(scratch) / "asked.json", Path(scratch) / "answer.npz"
        wanted = {"path": str(folder.absolute()), "dtype": dtype, "contexts": contexts, "prompt": prompt, "n_tokens": n_tokens}
        asked.write_text(json.dumps(wanted), encoding="utf-8")
        command = [python, str(_PROGRAM), str(asked), str(answer)]
        ended = subprocess.run(command, env=_CPU_CACHE | _around() | _SETTINGS, capture_output=True, text=True, check=False, cwd=scratch)
        if ended.returncode or not answer.is_file():
            reason = _reason(ended.stderr)
            raise ModelError(f"vLLM must load and run the checkpoint; that of {python} does not ({reason}): build for another engine.")
        with np.load(answer, allow_pickle=False) as found:
            rows = found["log_probabilities"].astype(np.float64)
            return Answer(str(found["version"]), _normalised(rows), found["written"])


def _normalised(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = rows - rows.max(axis=1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def _reason(log: str) -> str:
    """Return the last line of a log that names an error."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line]
    return (named or lines or ["it said nothing"])[-1].rstrip(".")[:300]
