"""Residence of a model that is larger than memory: each station's weights are read when a pass comes there, the next one's meanwhile.

Parameters keep their storage, whose memory comes and goes (`station_memory.py`), so that taps and routers that recognise a weight by its address find
it whenever it is in memory.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor as Torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bitwright.compress.models.residence import Changes, Job, Residence, Result, Views, Weights
from bitwright.compress.models.streaming.freed_memory import return_freed_memory
from bitwright.compress.models.streaming.hidden_states import HiddenStates
from bitwright.compress.models.streaming.lockstep import Turns, run_together
from bitwright.compress.models.streaming.recorded_blocks import (
    Forward,
    Pending,
    Run,
    differentiated,
    hidden_states,
    needs_gradient,
    propagate,
    recorded,
    towards_blocks,
)
from bitwright.compress.models.streaming.station_memory import StationMemory
from bitwright.compress.models.streaming.stations import Station
from bitwright.compress.models.streaming.weight_reader import WeightReader
from bitwright.errors import ModelError
from bitwright.progress import Advance

_WHOLE = "Derivatives of a streamed model go through its blocks one at a time; these need all of it in memory: choose --sensitivity gradient."
_GETTER, _VIEWS = "__get__", ("T", "mT", "H", "mH")  # shapes and types need no weights, transposes do


@dataclass(eq=False)
class _Context:
    """State of one job: the weights that it runs with, and the runs of stations to go back through."""

    changes: Changes | None = None
    weights: Weights | None = None
    runs: list[Run] | None = None
    job: Turns[Any] | None = None

    def replaced(self, parameters: Collection[str]) -> set[str]:
        """Return those of `parameters` whose original weights the job does not need."""
        return self.changes.replaced(self.weights, parameters) if self.changes is not None and self.weights is not None else set()

    def n_differing(self, other: "_Context", parameters: Collection[str]) -> int:
        """Return how many weights of `parameters` are written anew where another job follows."""
        if self.changes is None or self.changes is not other.changes:
            return 0
        return self.changes.n_differing(self.weights or {}, other.weights or {}, parameters)


class Streamed(Residence):
    """Weights of `stations` of a module that are read by `reader` as they are needed."""

    is_streamed = True
    expanded_bytes = 0

    def __init__(self, module: nn.Module, stations: Sequence[Station], memory: StationMemory, reader: WeightReader, hidden: HiddenStates) -> None:
        """Take over the parameters of the stations, which have no weights yet, and the `forward` of each station."""
        self._stations, self.memory, self._reader, self._hidden = tuple(stations), memory, reader, hidden
        self.room_bytes = hidden.bound_bytes
        self._present: set[str] = set()
        self._unread: set[str] = set()  # of those in memory: all jobs of the pass write other weights there
        self._together: tuple[_Context, ...] = ()
        self._last: Station | None = None
        self._reading: threading.Thread | None = None
        self._failed: list[ModelError] = []
        self._standing: Changes | None = None
        self._context = self._outside = _Context()
        self._guard = _Guard(memory)
        for station in self._stations:
            inner = module.get_submodule(station.name)
            inner.forward = partial(self._visit, station, inner, inner.forward)
        module.forward = partial(self._guarded, module.forward)

    # --- passes

    def each(self, jobs: Sequence[Job[Result]], advance: Advance) -> Iterator[Result]:
        """Run the jobs together: each station's weights are read once for all of them."""
        turns = [Turns(job.run) for job in jobs]
        begun = self._context
        contexts = {turn: _Context(begun.changes, begun.weights, None, turn) for turn in turns}
        self._together = tuple(contexts.values())
        shown = _Shown(sum(job.n_tokens for job in jobs), advance)

        def enter(turn: Turns[Result]) -> None:
            self._context = contexts[turn]

        def ordered(there: list[Turns[Result]], station: Station) -> list[Turns[Result]]:
            """Let each job be followed by the one that writes the fewest weights anew."""
            found, left = there[:1], there[1:]
            while left:
                of_last = contexts[found[-1]]
                found.append(left.pop(int(np.argmin([of_last.n_differing(contexts[job], station.parameters) for job in left]))))
            return found

        def served() -> None:
            is_backward = any(context.runs is not None for context in contexts.values())
            shown.step(len(self._stations) * (1 + is_backward))

        try:
            yield from run_together(turns, enter=enter, ordered=ordered, served=served)
            shown.finish()
        finally:
            self._context, self._together = begun, ()
            self._free_all()

    def differentiate(self, forward: Callable[[], Torch], slope: Callable[[Torch], Torch]) -> None:
        """Run `forward`, then back through the stations from the last to the first; each block is run again on its way."""
        context = self._context
        context.runs = []
        try:
            with torch.enable_grad():
                output = forward()
                gradient = slope(output.detach())
                torch.autograd.backward(output, gradient, retain_graph=True)
                del output, gradient
            pending: Pending = []
            last: Pending = []
            while context.runs:
                run = context.runs.pop()
                self._turn(run.station, [states for _, states in pending])
                propagate(pending)
                with self._active():
                    pending, others = towards_blocks(differentiated(run, hidden=self._hidden, device=self._device))
                last += others
            propagate(pending + last)
        finally:
            context.runs = None

    @property
    def _device(self) -> torch.device:
        return next(iter(self.memory.parameters.values())).device

    # --- weights

    def change(self, changes: Changes, weights: Weights) -> None:
        """Give each station these weights when the running job comes there."""
        self._context.changes, self._context.weights = changes, weights

    def originals(self, parameters: Views) -> "Originals":
        """Return the original weights, read again on access."""
        return Originals(parameters, self._reader)

    def weights(self, parameters: Views) -> Iterator[tuple[str, Torch]]:
        """Yield the original weights by name, read one after another."""
        for name, parameter in parameters.items():
            yield name, self._reader.read(name, parameter) if name in self.memory.parameters else parameter

    def parts(self, parameters: Views) -> Iterator[tuple[str, Torch]]:
        """Yield a few rows of the original weights at a time, as they are stored."""
        for name, parameter in parameters.items():
            yield from ((name, part) for part in (self._reader.parts(name, parameter) if name in self.memory.parameters else (parameter,)))

    # --- stations

    def _guarded(self, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own forward pass; one that is no part of a job frees what it has read."""
        try:
            with self._guard:
                return forward(*args, **kwargs)
        finally:
            if self._context.job is None:
                self._free_all()

    def _visit(self, station: Station, inner: nn.Module, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        """Run the forward pass of a station, the module `inner`, with its weights in memory."""
        self._turn(station, hidden_states(args, kwargs))
        runs = self._context.runs
        if runs is None and torch.is_grad_enabled() and (needs_gradient(args, kwargs) or any(each.requires_grad for each in inner.parameters())):
            raise ModelError(_WHOLE)
        with self._active():
            if runs is None:
                return forward(*args, **kwargs)
            if not station.is_block or not needs_gradient(args, kwargs):
                runs.append(Run(station))
                return forward(*args, **kwargs)
            output, run = recorded(station, forward, args, kwargs, hidden=self._hidden)
            runs.append(run)
            return output

    def _active(self) -> Any:
        return self._context.changes.active() if self._context.changes is not None else nullcontext()

    def _turn(self, station: Station, states: Sequence[Torch]) -> None:
        """Wait until it is the running job's turn, and give the station its weights."""
        kept = []
        if self._context.job is not None:
            kept = [(self._hidden.put_away(each), each) for each in states]
            self._context.job.wait_at(station)
        with torch._C.DisableTorchFunction():  # taps observe what the model does, and the guard what it reads
            for one, each in kept:
                if one is not None:
                    self._hidden.bring_back(one, each)
            if station is not self._last:
                self._occupy(station)
            self._stand(station)

    def _occupy(self, station: Station) -> None:
        """Read the weights of a station, unless they were read ahead, and begin to read those of the next; all others are freed."""
        self._join()
        following = self._following(station)
        self._release(self._present - station.parameters - following, following)
        self._read(*self._needed(station.parameters - self._present))
        self._last, names = station, following - self._present
        if names:
            self._reading = threading.Thread(target=self._read_ahead, args=self._needed(names), daemon=True)
            self._reading.start()

    def _needed(self, names: Collection[str]) -> tuple[list[str], list[str]]:
        """Return the parameters whose original weights a job of the pass needs, and the others."""
        others = set.intersection(*(context.replaced(names) for context in self._together)) if self._together else set[str]()
        return sorted(set(names) - others), sorted(others)

    def _following(self, station: Station) -> frozenset[str]:
        """Return the parameters of the station that a pass comes to after `station`: back from the last one where it is a backward pass too."""
        is_backward = self._last is not None and station.index == self._last.index - 1
        turns = station is self._stations[-1] and self._context.runs is not None
        ahead = station.index + (-1 if is_backward or turns else 1)
        return self._stations[ahead].parameters if 0 <= ahead < len(self._stations) else frozenset()

    def _stand(self, station: Station) -> None:
        """Give a station's parameters the weights of the running job."""
        changes, weights = self._context.changes, self._context.weights
        if self._standing is not None and self._standing is not changes:
            self._standing.write({}, station.parameters)
        if needed := (self._unread & station.parameters) - self._context.replaced(self._unread & station.parameters):
            self._read(sorted(needed), ())
            if self._standing is not None:
                self._standing.forget(needed)
        if changes is not None and weights is not None:
            changes.write(weights, station.parameters)
        self._standing = changes

    def _read_ahead(self, names: Sequence[str], others: Sequence[str]) -> None:
        try:
            self._read(names, others)
        except ModelError as error:
            self._failed.append(error)

    def _read(self, names: Sequence[str], others: Sequence[str]) -> None:
        """Read the original weights of `names`, and have memory for those of `others`, which jobs write."""
        self._reader.require_unchanged()
        for name in others:
            self.memory.hold(name)
            self._present.add(name)
            self._unread.add(name)
        for name in names:
            self._reader.fill(name, self.memory.hold(name))
            self._present.add(name)
            self._unread.discard(name)
        self._reader.require_unchanged()

    def _join(self) -> None:
        if self._reading is not None:
            self._reading.join()
            self._reading = None
        if self._failed:
            raise self._failed.pop()

    def _release(self, names: Collection[str], following: Collection[str] = ()) -> None:
        if names and self._standing is not None:
            self._standing.forget(names)
        self.memory.free(names, following)
        self._present -= set(names)
        self._unread -= set(names)
        return_freed_memory()

    def _free_all(self) -> None:
        """Free all weights, as between two passes."""
        if self._reading is not None:
            self._reading.join()
            self._reading = None
        self._failed.clear()
        with torch._C.DisableTorchFunction():
            self._release(set(self._present))
        self._last = None


class Originals(Mapping[str, Torch]):
    """Original weights of parameters, read again on access; the last one is kept."""

    def __init__(self, parameters: Views, reader: WeightReader) -> None:
        self._parameters, self._reader = parameters, reader
        self._last: dict[str, Torch] = {}

    def __getitem__(self, name: str) -> Torch:
        if name not in self._last:
            self._last.clear()
            self._last[name] = self._reader.read(name, self._parameters[name])
        return self._last[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)


class _Guard(TorchFunctionMode):
    """Requires that every weight that a function takes is in `memory`: a freed one has none, or the weights of another block."""

    def __init__(self, memory: StationMemory) -> None:
        super().__init__()
        self.memory = memory

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        needs_weights = func.__name__ != _GETTER or func.__self__.__name__ in _VIEWS  # type: ignore[attr-defined]
        for taken in tree_leaves((args, kwargs)) if needs_weights else ():
            if isinstance(taken, Torch) and self.memory.is_absent(taken):
                raise ModelError(
                    "A model is streamed where each block's weights are read within the block alone; this model reads others: give more "
                    "--search-memory, or a machine with more."
                )
        return func(*args, **(kwargs or {}))


@dataclass(eq=False)
class _Shown:
    """Progress of a pass over `n_tokens`, in rounds of turns."""

    n_tokens: int
    advance: Advance
    n_rounds: int = 0
    n_shown: int = 0

    def step(self, n_expected: int) -> None:
        """Show one more of `n_expected` rounds."""
        self.n_rounds += 1
        self._show(min(self.n_tokens, self.n_tokens * self.n_rounds // n_expected))

    def finish(self) -> None:
        """Show the end."""
        self._show(self.n_tokens)

    def _show(self, n_tokens: int) -> None:
        if n_tokens > self.n_shown:
            self.advance(n_tokens - self.n_shown)
            self.n_shown = n_tokens
