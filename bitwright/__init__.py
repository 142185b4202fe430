"""Bitwright: which precision should every layer of a model get within a memory budget, and the finished model.

    import bitwright as bw
    fitted = bw.fit(bw.Settings("model.gguf"), bw.parse_budget("90MB"), Path("out"))

The names below are loaded when they are first used, so that importing the package is quick. The verb `search` is `bw.pipeline.search`, since
`bitwright.search` is a room.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitwright import pipeline as pipeline
    from bitwright import report as report
    from bitwright.pipeline import Memory, Search, Settings, build, describe, fit, method_named, named_objectives, open_run, plan, verify
    from bitwright.spaces import parse_budget, read_plan

__version__ = "0.1.0"
__all__ = [
    "Memory",
    "Search",
    "Settings",
    "build",
    "describe",
    "fit",
    "method_named",
    "named_objectives",
    "open_run",
    "parse_budget",
    "plan",
    "read_plan",
    "verify",
]

_HOMES = {name: "bitwright.spaces" if name in {"parse_budget", "read_plan"} else "bitwright.pipeline" for name in __all__}


def __getattr__(name: str) -> object:
    if name in {"pipeline", "report"}:
        return import_module(f"bitwright.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'bitwright' has no attribute '{name}'")
    return vars(import_module(_HOMES[name]))[name]


def __dir__() -> list[str]:
    return ["__version__", *__all__]
