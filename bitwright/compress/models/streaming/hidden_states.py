"""Hidden states between blocks, in memory up to a bound and beyond it in a file, unnamed and gone with the process."""

import os
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor as Torch

from bitwright.errors import OutputError
from bitwright.whole_files import output_errors


@dataclass(frozen=True, eq=False)
class Kept:
    """Hidden states that are kept for later: the tensor itself, or its place in the file."""

    tensor: Torch | None
    start: int
    n_bytes: int
    like: Torch


class HiddenStates:
    """Store of hidden states, with at most `bound_bytes` of them in memory and the others in a file in `folder`."""

    def __init__(self, folder: Path, bound_bytes: int) -> None:
        self._folder, self.bound_bytes = folder, bound_bytes
        self._in_memory_bytes = self._end = 0
        self._free: dict[int, list[int]] = {}
        self._descriptors: list[int] = []

    def keep(self, states: Torch) -> Kept:
        """Keep hidden states until `take`; the caller lets go of `states`.

        Raises:
            OutputError: the disk is full.
        """
        n_bytes, like = states.numel() * states.element_size(), states.new_empty(0)
        if self._in_memory_bytes + n_bytes <= self.bound_bytes:
            self._in_memory_bytes += n_bytes
            return Kept(states, -1, n_bytes, like)
        start = self._room(n_bytes)
        self._write(states, start)
        return Kept(None, start, n_bytes, like.new_empty(states.shape, device="meta"))

    def take(self, kept: Kept, device: torch.device) -> Torch:
        """Return hidden states that were kept, once.

        Raises:
            OutputError: the file cannot be read.
        """
        if kept.tensor is not None:
            self._in_memory_bytes -= kept.n_bytes
            return kept.tensor
        states = torch.empty(kept.like.shape, dtype=kept.like.dtype)
        self._read(states, kept.start)
        self._free.setdefault(kept.n_bytes, []).append(kept.start)
        return states.to(device)

    def put_away(self, states: Torch) -> Kept | None:
        """Free the memory of hidden states that others refer to, until `bring_back`; None where they are part of other memory and stay."""
        storage = states.untyped_storage()
        if not states.is_contiguous() or storage.nbytes() != states.nbytes or not storage.resizable():
            return None
        kept = self.keep(states)
        if kept.tensor is None:
            storage.resize_(0)
        return kept

    def bring_back(self, kept: Kept, states: Torch) -> None:
        """Undo `put_away`.

        Raises:
            OutputError: the file cannot be read.
        """
        found = self.take(kept, states.device)
        if found is not states:
            storage = states.untyped_storage()
            storage.resize_(kept.n_bytes)
            torch.empty(0, dtype=states.dtype, device=states.device).set_(storage, 0, states.shape).copy_(found)  # type: ignore[call-overload]

    def _room(self, n_bytes: int) -> int:
        """Return a place in the file for `n_bytes`, one that was freed where there is one."""
        free = self._free.get(n_bytes, [])
        if free:
            return free.pop()
        self._end += n_bytes
        return self._end - n_bytes

    def _file(self) -> int:
        """Return the descriptor of the file, made at first use."""
        if not self._descriptors:
            with output_errors(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True)
                descriptor, name = tempfile.mkstemp(dir=self._folder, prefix=".bitwright-")
                Path(name).unlink()
            self._descriptors.append(descriptor)
            weakref.finalize(self, os.close, descriptor)
        return self._descriptors[0]

    def _write(self, states: Torch, start: int) -> None:
        data = states.detach().to("cpu", copy=True).contiguous().view(torch.uint8).numpy().reshape(-1).data  # a copy: numpy pins memory
        with output_errors(self._folder):
            done = 0
            while done < len(data):
                done += os.pwrite(self._file(), data[done:], start + done)

    def _read(self, states: Torch, start: int) -> None:
        data = states.view(torch.uint8).numpy().reshape(-1).data
        with output_errors(self._folder):
            n_read = os.preadv(self._file(), [data], start)
        if n_read != len(data):
            raise OutputError(f"Hidden states must be read as they were written; those in {self._folder} are not: choose another --out folder.")
