"""Memory of a run by llama.cpp's own account: its log, and the resident size of its process, to compare with `llama_cpp_memory`.

The engine runs in a process of its own (`memory_probe.py`), since the resident size of one that holds torch says nothing about it.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from bitwright.engines.memory import Serving
from bitwright.errors import ModelError, shown

_REASON = re.compile(r" E \S+?: (?:error loading model: )?(.+)$", re.MULTILINE)
_PROGRAM = Path(__file__).with_name("memory_probe.py")
_BUFFER = re.compile(r"(\S+)\s+(model|KV|output|compute) buffer size =\s+([\d.]+) MiB")
_RESIDENT = re.compile(r"^resident (\d+)$", re.MULTILINE)
_PLACE = re.compile(r"^(?:[\d.]+ )?\S+:\d+: ")  # time and place in the source
_ASSERTION = re.compile(r"GGML_ASSERT\(.*|fatal error.*")
_ENVIRONMENT = {"GGML_NO_BACKTRACE": "1"}  # a debugger's words would follow an assertion
_MEBIBYTE = 2**20


@dataclass(frozen=True)
class EngineMemory:
    """Bytes of the buffers that the engine says it has, rounded to hundredths of a MiB each, and of its process once its context was filled."""

    weights_bytes: int
    cache_bytes: int
    outputs_bytes: int
    compute_bytes: int
    resident_bytes: int

    @property
    def buffers_bytes(self) -> int:
        """Bytes of all buffers."""
        return self.weights_bytes + self.cache_bytes + self.outputs_bytes + self.compute_bytes


def engine_memory(path: Path, serving: Serving, *, fill: int) -> EngineMemory:
    """Load the GGUF file in a fresh process, without mapping it, compute `fill` tokens, and read what that took.

    Raises:
        ModelError: the engine does not load it.
    """
    ended = _run(path, serving, fill=fill, mapped=False)
    resident = _RESIDENT.search(ended.stdout)
    if resident is None:
        raise ModelError(f"llama.cpp must be able to load the file; it refuses {path} ({_reason(ended)}): build it again.")
    sizes: dict[str, float] = {}
    for found in _BUFFER.finditer(ended.stdout + ended.stderr):
        sizes[found[2]] = sizes.get(found[2], 0.0) + float(found[3])
    weights, cache, outputs, compute = (round(_MEBIBYTE * sizes.get(kind, 0.0)) for kind in ("model", "KV", "output", "compute"))
    return EngineMemory(weights, cache, outputs, compute, int(resident[1]))


def why_refused(path: Path) -> str:
    """Return in one line why llama.cpp does not load a GGUF file, by its log."""
    return _reason(_run(path, Serving(64), fill=0, mapped=True))


def why_unusable(path: Path, context: int) -> str:
    """Load a GGUF file in a process of its own and compute `context` tokens there; return in one line why llama.cpp cannot, empty where it can.

    For some files llama.cpp aborts its process, which no caller survives.
    """
    ended = _run(path, Serving(context + 1), fill=context, mapped=True)
    return "" if _RESIDENT.search(ended.stdout) else _reason(ended)


def _run(path: Path, serving: Serving, *, fill: int, mapped: bool) -> subprocess.CompletedProcess[str]:
    asked = json.dumps({"path": str(path), "fill": fill, "map": mapped} | asdict(serving))
    program, environment = [sys.executable, str(_PROGRAM), asked], os.environ | _ENVIRONMENT
    return subprocess.run(program, capture_output=True, text=True, errors="replace", check=False, env=environment)


def _reason(ended: subprocess.CompletedProcess[str]) -> str:
    """Return the last words of a process that was aborted, else the first of the engine's errors: those after it repeat that loading failed."""
    words = ended.stderr.strip().splitlines()
    if ended.returncode < 0 and words:
        assertions = _ASSERTION.findall(ended.stderr)  # other lines of the log may follow, cut short by the abort
        return shown(assertions[-1] if assertions else _PLACE.sub("", words[-1]), 200)
    found = _REASON.search(ended.stdout + ended.stderr)
    return " ".join(found[1].split()) if found else "it ended without a word"
