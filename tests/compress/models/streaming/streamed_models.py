"""Models of one folder, in memory and streamed, and passes over a text in both."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import MODULE_VIEW, Job, Model, Room, load
from bitwright.compress.models.streaming.streamed import Streamed
from bitwright.progress import ignore

IDS = np.random.default_rng(0).integers(3, 350, (6, 16))


def streamed(folder: Path, scratch: Path, *, memory_bytes: int = 0) -> Model:
    return load(str(folder), view=MODULE_VIEW, room=Room(scratch, memory_bytes, stream=True))


def in_memory(folder: Path) -> Model:
    return load(str(folder), view=MODULE_VIEW)


def logits(model: Model, *, at_once: int = 2) -> list[NDArray[np.float32]]:
    """The logits of each batch of `IDS`, all batches in one pass."""

    def run(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = model.module(torch.from_numpy(ids), use_cache=False).logits.float().numpy()
        return found

    return [*model.each([Job(lambda ids=ids: run(ids), ids.size) for ids in np.split(IDS, len(IDS) // at_once)], ignore)]


def resident(model: Model) -> list[str]:
    """Names of the parameters whose weights are in memory."""
    assert isinstance(model.residence, Streamed)
    memory = model.residence.memory
    return [name for name, parameter in model.module.named_parameters() if not memory.is_absent(parameter)]
