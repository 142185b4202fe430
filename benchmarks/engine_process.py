"""Run as a program, never imported by the package: load a GGUF file in llama.cpp alone, fill its context, and say what memory that took.

A process of its own, because the resident size of one that also holds torch says nothing about the engine.

    python engine_process.py '{"path": "model.gguf", "context": 2048, "parallel": 1, "keys": "F16", "values": "F16", "fill": 1024, "map": false}'

The engine writes its log to the standard output, and a last line `resident N` follows with the bytes in memory at the end.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import xllamacpp

_INFORMATIVE = 4
_TYPES = {name.removeprefix("GGML_TYPE_"): kind for name, kind in xllamacpp.ggml_type.__members__.items()}
_MAPPED, _READ = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MMAP, xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE


def main(asked: str) -> None:
    """Load, fill, and report."""
    wanted = json.loads(asked)
    settings = xllamacpp.CommonParams()
    settings.model.path = wanted["path"]
    settings.n_ctx, settings.n_parallel = wanted["context"] * wanted["parallel"], wanted["parallel"]
    settings.cache_type_k, settings.cache_type_v = _TYPES[wanted["keys"]], _TYPES[wanted["values"]]
    settings.load_mode = _MAPPED if wanted["map"] else _READ
    settings.cpuparams.n_threads, settings.warmup, settings.verbosity = 1, False, _INFORMATIVE
    settings.cache_ram_mib, settings.n_ctx_checkpoints, settings.fit_params = 0, 0, False
    server = xllamacpp.Server(settings)
    if wanted["fill"]:
        # token 7 is an ordinary one in every vocabulary known here
        server.handle_completions({"prompt": [7] * wanted["fill"], "max_tokens": 1, "temperature": 0.0})
    time.sleep(0.2)  # the log is written by a thread
    sys.stdout.write(f"\nresident {_resident_bytes()}\n")
    sys.stdout.flush()
    os._exit(0)  # the server's own end can hang when it follows at once


def _resident_bytes() -> int:
    """Bytes of this process in memory. Where the system does not say, the most there ever were, which on Linux would be its parent's."""
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    main(sys.argv[1])
