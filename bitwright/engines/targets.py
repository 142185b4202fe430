"""The targets by name: what each engine of a named version loads, and where the rule was read or seen.

What was read in an engine's source and what was really run is told apart in `docs/targets.md`.
"""

from bitwright.engines.compressed_tensors.target import TRANSFORMERS, VLLM
from bitwright.engines.llama_cpp.target import LLAMA_CPP
from bitwright.engines.native.target import _NATIVE, INTEGERS
from bitwright.errors import UserError
from bitwright.spaces import Target

TARGETS = {target.name: target for target in (LLAMA_CPP, TRANSFORMERS, VLLM, INTEGERS, *_NATIVE)}


def engine(name: str, version: str) -> Target:
    """The profile of an engine; of the version it was read from, or of any when `version` is empty.

    Raises:
        UserError: there is no such engine, or no profile of that version.
    """
    if name not in TARGETS:
        raise UserError(f"An engine must have a profile; '{name}' has none: choose from {', '.join(TARGETS)}.")
    if version not in ("", TARGETS[name].version):
        raise UserError(
            f"An engine's rules hold for the version they were read from; {name} {version} has no profile: use {name} {TARGETS[name].version}, or "
            "leave the version out to go by that one's rules."
        )
    return TARGETS[name]
