"""Memory that a search may use, and what a model takes of it: whole, or streamed block by block."""

from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from transformers import PreTrainedModel

from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.residence import IN_MEMORY, InMemory
from bitwright.compress.models.streaming.stations import station_bytes, stations_of
from bitwright.errors import UserError

#: memory of a process that has the libraries loaded and runs one block of a small model
CONSTANT_BYTES = 600 << 20
#: sequences whose logits are in memory at once, and how often: themselves, their probabilities, and those summed up to draw from
_SEQUENCES, _COPIES = 4, 3
#: upper bound on hidden states in memory, and on what else grows with the text
_TEXT_BYTES = 1 << 30


@dataclass(frozen=True)
class Room:
    """Memory of a search: `memory_bytes`, or what the machine has free where that is 0. With `stream` a model is streamed even if it fits. What
    memory does not hold of a text, in sequences of `sequence_length` tokens, goes to files in `scratch`.
    """

    scratch: Path
    memory_bytes: int = 0
    stream: bool = False
    sequence_length: int = 128


@dataclass(frozen=True)
class Footprint:
    """Bytes that a model takes: `whole`, as much as a search needs of a model in memory, and streamed at `least`: its two largest neighbouring
    stations, what lies outside of them, the logits of a batch, and a constant for the libraries. `text` is left for hidden states
    and as much again for what else grows with the text.
    """

    whole: int
    least: int
    text: int

    @property
    def streamed(self) -> int:
        """Return the memory that a search by streaming uses at most."""
        return self.least + 2 * self.text


def streams(skeleton: PreTrainedModel, room: Room, *, dtype: torch.dtype) -> bool:
    """Return whether a model must be streamed, by choice or because its weights and a copy of them do not fit."""
    return room.stream or whole_bytes(skeleton, room, dtype=dtype) > _memory(room)


def whole_bytes(skeleton: PreTrainedModel, room: Room, *, dtype: torch.dtype) -> int:
    """Return the bytes of a model in memory while another set of its weights is tried: two of each weight."""
    return CONSTANT_BYTES + _logits_bytes(skeleton, room) + 2 * dtype.itemsize * sum(weight.numel() for weight in weights_of(skeleton).values())


def in_memory(skeleton: PreTrainedModel, room: Room, *, dtype: torch.dtype) -> InMemory:
    """Return the residence of a model whose weights are all in memory: what else is kept there has half each of what they leave, up to a bound."""
    each = max(_memory(room) - whole_bytes(skeleton, room, dtype=dtype), 0) // 2
    return InMemory(min(each, IN_MEMORY.room_bytes), min(each, IN_MEMORY.expanded_bytes))


def footprint(skeleton: PreTrainedModel, room: Room, *, dtype: torch.dtype) -> Footprint:
    """Return what a model takes, given its module on the meta device.

    Raises:
        ModelError: its blocks cannot be found.
        UserError: the memory does not hold two of its blocks.
    """
    neighbours, outside = station_bytes(skeleton, stations_of(skeleton), width=dtype.itemsize)
    least, memory_bytes = neighbours + outside + _logits_bytes(skeleton, room) + CONSTANT_BYTES, _memory(room)
    if memory_bytes < least:
        raise UserError(
            f"A streamed model needs two of its blocks in memory at once; {memory_bytes / 1e9:.2f} GB do not hold them: give at least "
            f"--search-memory {_rounded_up(least)}."
        )
    return Footprint(whole_bytes(skeleton, room, dtype=dtype), least, min((memory_bytes - least) // 2, _TEXT_BYTES))


def sentence_of(found: Footprint, room: Room) -> str:
    """Return the sentence that says that a model is streamed, why, and what it costs."""
    why = "as asked" if room.stream else f"since in memory it would take {found.whole / 1e9:.1f} GB, and {_memory(room) / 1e9:.1f} GB may be used"
    return (
        f"The model is streamed block by block, {why}: every pass over a text reads all of its weights once from the disk, a gradient sweep twice, "
        f"and memory is expected to stay below {found.streamed / 1e9:.2f} GB ({found.least / 1e9:.2f} GB for two blocks, what lies outside of them, "
        f"logits and the libraries, {2 * found.text / 1e9:.2f} GB for the text)."
    )


def _logits_bytes(skeleton: PreTrainedModel, room: Room) -> int:
    return 4 * _COPIES * _SEQUENCES * room.sequence_length * int(skeleton.config.get_text_config().vocab_size)


def _memory(room: Room) -> int:
    return room.memory_bytes or int(psutil.virtual_memory().available)


def _rounded_up(n_bytes: int) -> str:
    return f"{-(-n_bytes // 10**8) / 10:.1f}GB"
