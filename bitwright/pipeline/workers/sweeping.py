"""Sweeps and prices by workers: batches of a sweep are tasks, and so are units to quantize in every format.

A batch has the products that it has in one process: its sequences, its labels' seed and the priced rows are the same. Products are stored by sequence
and summed by the driver in the order of the text, so that no sum depends on who computed what.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Bytes, Distortion, DrawnRows, Floats, RowSample, distortion_of_unit
from bitwright.objectives import Tokens
from bitwright.pipeline.workers.bench import Bench, Packed
from bitwright.pipeline.workers.measuring import shared_space, shared_text
from bitwright.pipeline.workers.packed_pairs import Pair, is_packed, pack, sent, shared_importance
from bitwright.pipeline.workers.shared import Shared
from bitwright.pipeline.workers.workers import Task, Workers
from bitwright.predictors import Elsewhere, Subject, SubjectPart
from bitwright.progress import Advance, Progress, Silent
from bitwright.spaces import Space

Drawn = Shared[tuple[Mapping[str, DrawnRows], int]]


@dataclass(frozen=True, eq=False)
class SweptPart(Task[list[NDArray[np.float64]]]):
    """Results of a part of a sweep. `rows` are the priced rows, `whole` the tensors that the sweep's operating point changes, both packed."""

    importance: Shared[Mapping[str, Floats]]
    space: Shared[Space]
    text: Shared[Tokens]
    drawn: Drawn
    seed: int
    rows: Packed
    whole: Packed
    part: SubjectPart

    @property
    def place(self) -> int:
        """The first sequence."""
        return int(self.part.sequences.start)

    @property
    def n_steps(self) -> int:
        """Tokens."""
        return self.part.n_tokens

    def do(self, bench: Bench) -> list[NDArray[np.float64]]:
        """Compute the part on a subject like the driver's."""
        levels, space = bench.levels(self.importance), bench.value(self.space)
        sample, formats = bench.sample(levels, self.drawn), {form.name: form for form in space.formats}
        bench.receive(levels, self.whole, formats)
        bench.receive(sample.levels, self.rows, formats)
        bench.swapper.restore()
        subject = Subject(bench.model, levels, space, bench.value(self.text), self.seed, bench.store, Silent(), sample)
        sequences = self.part.sequences
        return self.part.do(subject, partial(bench.predictions, self.text, sequences.start, sequences.stop))


@dataclass(frozen=True, eq=False)
class SweepingWorkers(Elsewhere):
    """Workers that sweep."""

    workers: Workers

    @property
    def n_workers(self) -> int:
        """Number of workers."""
        return self.workers.n_workers

    def each(self, subject: Subject, parts: Sequence[SubjectPart], advance: Advance) -> Iterator[list[NDArray[np.float64]]]:
        """Have the priced rows and the operating point's tensors packed that are not yet, and the parts done."""
        if not parts:
            return iter(())
        workers, rows = self.workers, subject.priced_rows
        of_rows = _priced_pairs(subject.space, rows)
        tensors = {tensor.name: tensor for tensor in subject.model.tensors}
        whole = [(tensors[name], form) for name, form in parts[0].formats.items() if is_packed(tensors[name], form)]
        pack(workers, subject.levels, whole)
        if rows.is_whole:
            pack(workers, rows.levels, of_rows)
        task = partial(
            SweptPart,
            shared_importance(workers, subject.levels),
            shared_space(workers, subject.space),
            shared_text(workers, subject.tokens),
            shared_rows(workers, rows),
            subject.seed,
            sent(workers, rows.levels, of_rows),
            sent(workers, subject.levels, whole),
        )
        return workers.each([task(part) for part in parts], advance)


def _priced_pairs(space: Space, rows: RowSample) -> list[Pair]:
    """Return the tensors, with the priced rows alone, and formats of every offered pair."""
    pairs = [(tensor, space.formats[f]) for u, f in np.argwhere(space.offered) for tensor in space.units[u].tensors]
    return [(rows.packed(tensor), form) for tensor, form in pairs if is_packed(tensor, form)]


def shared_rows(workers: Workers, rows: RowSample) -> Drawn:
    """Return a sample of rows for workers."""
    return workers.share(f"rows {rows.key}", lambda: (rows.drawn, rows.n_groups))


@dataclass(frozen=True, eq=False)
class PricedUnit(Task[tuple[NDArray[np.float64], dict[tuple[str, str], Bytes]]]):
    """Errors `(2, n_formats)` of one unit in every format, and the bytes that it was quantized to on the way."""

    importance: Shared[Mapping[str, Floats]]
    space: Shared[Space]
    drawn: Drawn
    unit: int
    n_weights: int

    place = -1

    @property
    def n_steps(self) -> int:
        """Weights of the unit."""
        return self.n_weights

    def do(self, bench: Bench) -> tuple[NDArray[np.float64], dict[tuple[str, str], Bytes]]:
        """Quantize the rows of the unit in every format."""
        bench.swapper.restore()
        space, sample = bench.value(self.space), bench.sample(bench.levels(self.importance), self.drawn)
        errors = distortion_of_unit(space, self.unit, sample)
        tried = [form for form, error in zip(space.formats, errors[0], strict=True) if not np.isnan(error)]
        pairs = [(sample.packed(tensor), form) for tensor in space.units[self.unit].tensors for form in tried]
        return errors, {(tensor.name, form.name): np.array(sample.levels.packed(tensor, form)) for tensor, form in pairs if is_packed(tensor, form)}


def distortion_by_workers(space: Space, rows: RowSample, workers: Workers, *, progress: Progress) -> Distortion:
    """Measure the errors of `sampled_distortion` by workers, the largest units first, and keep what was quantized in the run's folder."""
    importance, shared, drawn = shared_importance(workers, rows.levels), shared_space(workers, space), shared_rows(workers, rows)
    order = sorted(range(len(space.units)), key=lambda u: -space.units[u].n_weights)
    tasks = [PricedUnit(importance, shared, drawn, u, space.units[u].n_weights) for u in order]
    errors = np.full((len(space.units), 2, len(space.formats)), np.nan)
    forms, tensors = {form.name: form for form in space.formats}, {tensor.name: tensor for unit in space.units for tensor in unit.tensors}
    with progress.stage("Quantizing in every format", sum(unit.n_weights for unit in space.units)) as advance:
        for u, (of_unit, packed) in zip(order, workers.each(tasks, advance), strict=True):
            errors[u] = of_unit
            for (tensor, form), found in packed.items():
                rows.levels.put(rows.packed(tensors[tensor]), forms[form], found)
    return Distortion(errors[:, 0], errors[:, 1])


def with_workers(subject: Subject, workers: Workers | None) -> Subject:
    """Return the subject whose sweeps are made by workers, where there are any."""
    return subject if workers is None else replace(subject, elsewhere=SweepingWorkers(workers))
