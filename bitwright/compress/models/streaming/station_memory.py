"""Memory of the weights of stations, which those with even and those with odd numbers take in turns.

The first touch of a page costs the system more than to read weights into memory that was used before: with 4 kB pages up to half of the time in which
a block computes 256 tokens. So a block is read into the memory that the last but one has left, and the next one beside it into that of the last.

Every parameter keeps its storage, and so its address, whether its weights are there or not. Parameters of several stations, such as a head that is
tied to the embedding, have storages of their own, freed and allocated again as FSDP does (`torch.distributed.fsdp`); so have all of other devices.
"""

import mmap
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor as Torch
from torch import nn

from bitwright.compress.models.residence import Views
from bitwright.compress.models.streaming.stations import Station

_ALIGNMENT = 64


class StationMemory:
    """Parameters by name, of the shapes of `shapes` and without weights, in the memory of `stations`."""

    def __init__(self, stations: Sequence[Station], shapes: Views, *, dtype: torch.dtype, device: torch.device) -> None:
        self._shared = tuple(_SharedMemory(placed, dtype) for placed in _places(stations, shapes, dtype) if placed and _can_share(device))
        inside = {name: parameter for shared in self._shared for name, parameter in shared.parameters.items()}
        self._own = {
            name: nn.Parameter(torch.empty(shapes[name].shape, dtype=dtype, device=device), requires_grad=False)
            for station in stations
            for name in sorted(station.parameters - inside.keys())
        }
        self.parameters: Mapping[str, nn.Parameter] = {**inside, **self._own}
        self._storages = {name: int(parameter.untyped_storage()._cdata) for name, parameter in self.parameters.items()}
        self._absent = set(self._storages.values())
        self.free(self.parameters)

    def hold(self, name: str) -> Torch:
        """Return the parameter called `name`, with memory to write its weights to."""
        parameter = self.parameters[name]
        if name in self._own:
            parameter.untyped_storage().resize_(parameter.numel() * parameter.element_size())
        self._absent.discard(self._storages[name])
        return parameter

    def free(self, names: Collection[str], following: Collection[str] = ()) -> None:
        """Forget the weights of `names`; of memory that is shared what the parameters `following`, and those that are there, need stays."""
        self._absent |= {self._storages[name] for name in names}
        for name in names:
            if name in self._own:
                self._own[name].untyped_storage().resize_(0)
        there = {name for name, storage in self._storages.items() if storage not in self._absent}
        for shared in self._shared:
            shared.trim(there.union(following))

    def is_absent(self, tensor: Torch) -> bool:
        """Return whether a tensor is a parameter, or a part of one, whose weights are not in memory."""
        return tensor.untyped_storage()._cdata in self._absent


class _SharedMemory:
    """Range of addresses in which parameters of several stations lie, those of one at a time; `placed` are their shapes and offsets by name."""

    def __init__(self, placed: Mapping[str, tuple[torch.Size, int]], dtype: torch.dtype) -> None:
        ends = {name: offset + shape.numel() * dtype.itemsize for name, (shape, offset) in placed.items()}
        n_bytes = max(ends.values())
        self._memory = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._ends, self._n_bytes = ends, n_bytes
        self.parameters = {
            name: nn.Parameter(torch.frombuffer(self._memory, dtype=dtype, count=shape.numel(), offset=offset).view(shape), requires_grad=False)
            for name, (shape, offset) in placed.items()
        }

    def trim(self, names: Collection[str]) -> None:
        """Return the memory to the system but for that in which the parameters `names` lie."""
        end = -(-max((self._ends[name] for name in names if name in self._ends), default=0) // mmap.PAGESIZE) * mmap.PAGESIZE
        if end < self._n_bytes:
            self._memory.madvise(mmap.MADV_DONTNEED, end, self._n_bytes - end)


def _places(stations: Sequence[Station], shapes: Views, dtype: torch.dtype) -> Iterator[dict[str, tuple[torch.Size, int]]]:
    """Yield the shapes and offsets of the parameters of all even, then of all odd stations; those of several stations and empty ones have none."""
    for first in (0, 1):
        placed: dict[str, tuple[torch.Size, int]] = {}
        for station in stations[first::2]:
            others = frozenset[str]().union(*(other.parameters for other in stations if other is not station))
            end = 0
            for name in sorted(station.parameters - others):
                if shapes[name].numel():
                    placed[name] = shapes[name].shape, end
                    end += -(-shapes[name].numel() * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        yield placed


def _can_share(device: torch.device) -> bool:
    """Return whether memory can be returned to the system in part."""
    return device.type == "cpu" and sys.platform == "linux"
