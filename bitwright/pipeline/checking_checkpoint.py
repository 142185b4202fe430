"""Load a checkpoint of packed integers as its engine does, and compare it with what was promised.

transformers computes with the plan's own weights, so it must give the distributions that torch gave when the plan was measured: exactly where the
model is loaded in float32, and up to the rounding of the weights where experts are packed, which must be loaded in bfloat16. vLLM runs on hardware
that is seldom at hand when a model is built: there every layer is unpacked by the package that vLLM uses, and the promise is held to those weights.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import (
    CheckpointSource,
    Model,
    applied,
    compressed_tensors,
    load_packed,
    router_tensors,
    unpack_layer_by_layer,
    written_weights,
)
from bitwright.objectives import next_token_log_probabilities
from bitwright.pipeline.continuing import continued
from bitwright.pipeline.promises import Check, Floats, Mean, faults, gap_fault, mean_divergence, types_unlike
from bitwright.progress import Progress
from bitwright.spaces import TARGETS, TRANSFORMERS, Format, Plan

_EXACT, _ROUNDED = 1e-4, 5e-3  # nats between two computations with the same weights, and with weights rounded to bfloat16 in one of them


@dataclass(frozen=True)
class CheckpointCheck(Check):
    """What was promised and what was found. `in_engine` is the divergence from the original of what the engine loads, `engine_gap` that from torch
    with the plan's weights, `allowed_gap` what rounding explains of it.
    """

    engine_name: str
    size_promised: int
    size_found: int
    wrong_types: tuple[str, ...]
    in_torch: Mean
    in_engine: Mean
    engine_gap: Mean
    allowed_gap: float
    prompt: str
    text: str

    @property
    def engine(self) -> str:
        """See `Check.engine`."""
        return self.engine_name

    @property
    def written(self) -> str:
        """See `Check.written`."""
        return self.text

    @property
    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """See `Check.rows`."""
        return (
            ("size", f"{self.size_promised:,} bytes", f"{self.size_found:,} bytes"),
            ("formats", "as planned", "all as planned" if not self.wrong_types else f"{len(self.wrong_types)} differ"),
            ("divergence from the original", f"{self.in_torch} in torch", f"{self.in_engine} in {self.engine_name}"),
            (f"{self.engine_name} against torch, same weights", f"at most {self.allowed_gap:.4f}", str(self.engine_gap)),
        )

    @property
    def broken(self) -> tuple[str, ...]:
        """See `Check.broken`."""
        sizes = self.size_promised, self.size_found
        return (*faults(sizes, self.wrong_types, what="checkpoint"), *gap_fault(self.engine_name, self.engine_gap, self.allowed_gap))


@dataclass(frozen=True, eq=False)
class _Found:
    """What an engine gave: log-probabilities `(n_contexts, n_vocabulary)`, and a text."""

    engine: str
    log_probabilities: Floats
    allowed_gap: float
    text: str


def check_checkpoint(model: Model, plan: Plan, path: Path, *, contexts: list[NDArray[np.int64]], prompt: str, progress: Progress) -> CheckpointCheck:
    """Compare the folder at `path` with its plan, over `contexts`, each `(length,)` token ids.

    Raises:
        ModelError: the checkpoint cannot be read, by us or by the engine.
        BrokenPromiseError: a layer unpacks to other weights than were written.
    """
    container = compressed_tensors(TARGETS[plan.target], plan.model.source)
    built = container.written(path)
    with progress.stage("Checking the checkpoint", 3 * len(contexts)) as advance:
        original = next_token_log_probabilities(model, contexts)
        advance(len(contexts))
        is_at_hand = plan.target == TRANSFORMERS.name
        with applied(model, written_weights(built, (*plan.formats, *router_tensors(model).values()))):
            planned = next_token_log_probabilities(model, contexts)
            text = "" if is_at_hand else continued(model, prompt).text
        advance(len(contexts))
        if is_at_hand:
            found = _in_transformers(model, path, built, contexts=contexts, prompt=prompt)
        else:
            unpack_layer_by_layer(path, built)  # so the engine's weights are the plan's
            found = _Found("compressed-tensors", planned, _EXACT, text)
        advance(len(contexts))
    return CheckpointCheck(
        engine_name=found.engine,
        size_promised=plan.size_bytes,
        size_found=container.size_bytes(path),
        wrong_types=types_unlike(plan, built),
        in_torch=mean_divergence(original, planned),
        in_engine=mean_divergence(original, found.log_probabilities),
        engine_gap=mean_divergence(planned, found.log_probabilities),
        allowed_gap=found.allowed_gap,
        prompt=prompt,
        text=found.text,
    )


def _in_transformers(model: Model, path: Path, built: CheckpointSource, *, contexts: list[NDArray[np.int64]], prompt: str) -> _Found:
    rounded = any(isinstance(built.forms[slot.name], Format) and slot.piece.expert >= 0 for slots in built.slots.values() for slot in slots)
    module = load_packed(path, "auto" if rounded else torch.float32)
    torch.nn.Module.float(module)
    loaded = replace(model, module=module)
    found = next_token_log_probabilities(loaded, contexts)
    return _Found("transformers", found, _ROUNDED if rounded else _EXACT, continued(loaded, prompt).text)
