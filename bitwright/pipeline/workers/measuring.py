"""Measure choices by workers: choices × batches of sequences are tasks. The values are those of one process, since batches are the same."""

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Floats, PackedTensors
from bitwright.objectives import Measuring, TokenObjective, Tokens, batches_of
from bitwright.pipeline.workers.bench import Bench, Packed
from bitwright.pipeline.workers.packed_pairs import pack, pairs_of, sent, shared_importance
from bitwright.pipeline.workers.shared import Shared
from bitwright.pipeline.workers.workers import Task, Workers
from bitwright.spaces import Choice, Space

_STREAMED_AT_ONCE = 8  # choices that share the reading of a streamed model's blocks

Values = list[NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class MeasuredChoices(Task[Values]):
    """Objectives of `choices` on the sequences from `first` up to `stop` of a text: `(stop - first, n_objectives)` for each."""

    importance: Shared[Mapping[str, Floats]]
    space: Shared[Space]
    text: Shared[Tokens]
    objectives: tuple[TokenObjective, ...]
    choices: tuple[Choice, ...]
    packed: Packed
    first: int
    stop: int

    n_steps = 0

    @property
    def place(self) -> int:
        """The first sequence, on which the original's predictions are computed once."""
        return self.first

    def do(self, bench: Bench) -> Values:
        """Compute the original's predictions unless they are known, load each choice, and compare."""
        levels, space = bench.levels(self.importance), bench.value(self.space)
        bench.receive(levels, self.packed, {form.name: form for form in space.formats})
        reference, load = bench.predictions(self.text, self.first, self.stop), bench.loader(levels, self.space)
        return reference.measure_each(
            bench.model, self.objectives, [partial(load, choice) for choice in self.choices], first=self.first, stop=self.stop
        )


@dataclass(frozen=True, eq=False)
class MeasuringByWorkers(Measuring):
    """Way to measure choices of `space` on `tokens` by workers, with the packed tensors of the run."""

    workers: Workers
    levels: PackedTensors
    space: Space
    tokens: Tokens
    is_streamed: bool

    @property
    def at_once(self) -> int:
        """Return the number of choices that keep all workers busy, and of a streamed model those that share the reading of its blocks."""
        return max(self.workers.n_workers, _STREAMED_AT_ONCE if self.is_streamed else 1)

    def measure(self, choices: Sequence[Choice], objectives: Sequence[TokenObjective], *, first: int, stop: int) -> Values:
        """Have the tensors quantized that are not yet, and the choices measured."""
        pack(self.workers, self.levels, pairs_of(self.space, choices))
        parts = self._parts(choices, batches_of(self.tokens, first, stop))
        packed = [sent(self.workers, self.levels, pairs_of(self.space, [choice])) for choice in choices]
        task = partial(
            MeasuredChoices,
            shared_importance(self.workers, self.levels),
            shared_space(self.workers, self.space),
            shared_text(self.workers, self.tokens),
            tuple(objectives),
        )
        tasks = [
            task(tuple(choices[i] for i in some), {pair: shared for i in some for pair, shared in packed[i].items()}, sequences.start, sequences.stop)
            for some, sequences in parts
        ]
        found: list[list[NDArray[np.float64]]] = [[] for _ in choices]
        for (some, _), values in zip(parts, self.workers.each(tasks), strict=True):
            for i, of_choice in zip(some, values, strict=True):
                found[i].append(of_choice)
        return [np.concatenate(of_choice) for of_choice in found]

    def _parts(self, choices: Sequence[Choice], batches: Sequence[slice]) -> list[tuple[range, slice]]:
        """Return the choices, by index, and the sequences of each task: one choice on one batch, or of a streamed model, of which a task reads all
        weights, all choices on as many batches as are fair.
        """
        if not self.is_streamed:
            return [(range(i, i + 1), sequences) for i in range(len(choices)) for sequences in batches]
        step = -(-len(batches) // self.workers.n_workers)
        runs = [batches[i : i + step] for i in range(0, len(batches), step)]
        return [(range(len(choices)), slice(run[0].start, run[-1].stop)) for run in runs]


def measuring_of(workers: Workers | None, levels: PackedTensors, space: Space, tokens: Tokens, *, is_streamed: bool) -> Measuring | None:
    """Return the way to measure by workers, None where there are none."""
    return None if workers is None else MeasuringByWorkers(workers, levels, space, tokens, is_streamed)


def shared_space(workers: Workers, space: Space) -> Shared[Space]:
    """Return a space for workers."""
    return workers.share(f"space {hashlib.sha256(pickle.dumps(space)).hexdigest()}", lambda: space)


def shared_text(workers: Workers, tokens: Tokens) -> Shared[Tokens]:
    """Return a text for workers."""
    return workers.share(f"text {tokens.ids.shape} {hashlib.sha256(tokens.ids.tobytes()).hexdigest()}", lambda: tokens)
