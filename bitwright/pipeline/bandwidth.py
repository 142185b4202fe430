"""How many bytes the engine reads for a token, and so how fast a device can decode at best: its bandwidth over the bytes.

What it leaves out: that formats cost different work to unpack (`bitwright profile` measures that), the engine's overhead for each token, and prompts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Source
from bitwright.objectives import MemoryUse, Serving
from bitwright.pipeline.memory import Anatomy
from bitwright.spaces import Choice, Device, Latency, Space, Unit

_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"


@dataclass(frozen=True, eq=False)
class Reading:
    """What of a file is read for each token: of the units the `shares` `(n_units,)`, and of what no choice changes `fixed_bytes`."""

    space: Space
    shares: NDArray[np.float64]
    fixed_bytes: int

    def by_format(self, choice: Choice) -> dict[str, int]:
        """Bytes of the units that a token reads, by the name of their format."""
        sizes = self.space.size_bits[np.arange(len(choice)), choice] / 8 * self.shares
        found: dict[str, int] = {}
        for index, size in zip(choice, sizes, strict=True):
            name = self.space.formats[index].name
            found[name] = found.get(name, 0) + int(size)
        return found

    def read_bytes(self, choice: Choice, use: MemoryUse) -> int:
        """Bytes of weights and of a full cache that one step of decoding reads, for all sequences of `use` together."""
        sizes = self.space.size_bits[np.arange(len(choice)), choice] / 8
        return int(sizes @ self.shares) + self.fixed_bytes + sum(line.size_bytes for line in use.cache)


def reading(space: Space, source: Source, anatomy: Anatomy) -> Reading:
    """What of a model's files is read. A token embedding that is no output head is read in one row, and of experts only those that a token uses."""
    tied = all(tensor.name != _HEAD for tensor in source.tensors)
    shares = np.array([_share(unit, anatomy.shape.n_used, tied_head=tied) for unit in space.units])
    return Reading(space, shares, space.fixed_bits // 8 - anatomy.header_bytes)


def tokens_per_second(device: Device, reading: Reading, choice: Choice, use: MemoryUse) -> float:
    """The rate of each sequence: by what the device was timed with, where it was, else what its bandwidth allows at most."""
    latency, cache = device.latency, sum(line.size_bytes for line in use.cache)
    by_format = reading.by_format(choice)
    if isinstance(latency, Latency) and set(by_format) <= set(latency.seconds_per_byte):
        return 1 / (latency.seconds_per_token(by_format) + device.seconds_per_token(reading.fixed_bytes + cache))
    return 1 / device.seconds_per_token(reading.read_bytes(choice, use))


def serving_of(device: Device) -> Serving:
    """What is asked of the engine on a device.

    Raises:
        UserError: the engine has no such cache.
    """
    return Serving(device.context, device.sequences, *device.cache)


def _share(unit: Unit, n_used: int, *, tied_head: bool) -> float:
    tensor = unit.tensors[0]
    if tensor.name == _EMBEDDING and not tied_head:
        return 0.0
    return n_used / tensor.shape[0] if len(tensor.shape) == 3 else 1.0
