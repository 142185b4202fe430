"""Bench of a worker: the run's model, loaded once, and what the tasks of the run need again and again.

Weights of the source never travel: a worker reads the model's files itself. Packed tensors do, each once to every worker, and are kept in a folder of
its own within the bound of the run's `--disk-limit`.
"""

import importlib.metadata
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bitwright.compress import (
    EXPANDED_BYTES,
    Bytes,
    DiskBound,
    DrawnRows,
    Floats,
    Model,
    PackedTensors,
    Room,
    RowSample,
    WeightSwapper,
    choice_loader,
    load,
    swapping,
)
from bitwright.objectives import Reference, Store, Tokens
from bitwright.pipeline.settings import DTYPES, Settings
from bitwright.pipeline.workers.shared import Shared
from bitwright.progress import Silent
from bitwright.spaces import Choice, Format, Space

T = TypeVar("T")
_KEPT = 4  # texts, spaces and samples, of each

#: packed tensors that a task needs: name of the tensor and of the format -> bytes
Packed = Mapping[tuple[str, str], Shared[Bytes]]


@dataclass(frozen=True)
class Identity:
    """Settings of a worker that must be those of the run: fingerprint of the model, and versions of what computes, by name."""

    values: Mapping[str, str]

    def difference(self, other: "Identity") -> str:
        """Return what differs first from another identity, empty if nothing does."""
        return next((f"{name} {value}, not {other.values[name]}" for name, value in self.values.items() if value != other.values[name]), "")


def identity_of(fingerprint: str) -> Identity:
    """Return the identity of a process whose model has this fingerprint."""
    versions = {name: importlib.metadata.version(name) for name in ("bitwright", "torch", "transformers", "xllamacpp")}
    return Identity({**versions, "model": fingerprint})


@dataclass(eq=False)
class Bench:
    """Model of a worker, with the original weights or those that `swapper` gave it, and a `folder` of its own.

    `received_bytes` counts the packed tensors that were sent to it.
    """

    settings: Settings
    model: Model
    folder: Path
    swapper: WeightSwapper
    store: Store
    received_bytes: int = 0
    _kept: OrderedDict[tuple[str, ...], Any] = field(default_factory=OrderedDict)

    @property
    def identity(self) -> Identity:
        """The identity of this worker."""
        return identity_of(self.model.source.fingerprint)

    def value(self, shared: Shared[T]) -> T:
        """Return a shared value, which is received once."""
        return self._once(("value", shared.key), shared.get)

    def levels(self, importance: Shared[Mapping[str, Floats]]) -> PackedTensors:
        """Return the packed tensors of this worker, quantized with an importance matrix where they were not sent."""
        return self._once(("levels", importance.key), lambda: self._levels(self.value(importance)))

    def sample(self, levels: PackedTensors, drawn: Shared[tuple[Mapping[str, DrawnRows], int]]) -> RowSample:
        """Return the sample of rows that was drawn."""
        return self._once(("sample", str(levels.folder), drawn.key), lambda: RowSample(levels, *self.value(drawn)))

    def receive(self, levels: PackedTensors, packed: Packed, formats: Mapping[str, Format]) -> None:
        """Store the packed tensors that are not here yet; `formats` are those of the target by name."""
        tensors = {tensor.name: tensor for tensor in levels.source.tensors}
        for (tensor, form), shared in packed.items():
            if not levels.has(tensors[tensor], formats[form]):
                found = shared.get()
                self.received_bytes += found.nbytes
                levels.put(tensors[tensor], formats[form], found)

    def loader(self, levels: PackedTensors, space: Shared[Space]) -> Callable[[Choice], None]:
        """Return the function that gives the model the weights of a choice; see `choice_loader`."""

        def made() -> Callable[[Choice], None]:
            self.swapper.restore()
            return choice_loader(self.swapper, self.model, levels, self.value(space))

        return self._once(("loader", str(levels.folder), space.key), made)

    def predictions(self, text: Shared[Tokens], first: int, stop: int) -> Reference:
        """Return the original's predictions on a text, computed on the sequences from `first` up to `stop` at least."""
        found = self._once(("reference", text.key), partial(self._predictions, text))
        if not found.has(first, stop):
            self.swapper.restore()
            found.learn(self.model, first, stop)
        return found

    def _predictions(self, text: Shared[Tokens]) -> Reference:
        return Reference(self.model, self.value(text), scratch=self.folder, progress=Silent(), sequences=slice(0))

    def _levels(self, importance: Mapping[str, Floats]) -> PackedTensors:
        source, folder = self.model.source, self.folder / "levels"
        n_bytes = self.settings.disk_limit_bytes or 2 * sum(source.stored_bytes(tensor) for tensor in source.tensors)
        bound = DiskBound(folder, n_bytes, tensors=frozenset(tensor.name for tensor in source.tensors))
        return PackedTensors(folder, source, self.settings.engine.codec(self.settings.rounding, {}), importance, bound)

    def _once(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """Return what `make` returned the first time; of each kind, the last of the key's first word, a few are kept."""
        if key not in self._kept:
            alike = [other for other in self._kept if other[0] == key[0]]
            if len(alike) >= _KEPT:
                del self._kept[alike[0]]
            self._kept[key] = make()
        self._kept.move_to_end(key)
        found: T = self._kept[key]
        return found


@contextmanager
def open_bench(settings: Settings, folder: Path, *, device: str) -> Iterator[Bench]:
    """Load the model of a run, to do its tasks within the `with` block; the `folder` is for what does not fit into memory.

    Raises:
        UserError: the model cannot be loaded here.
    """
    engine = settings.engine
    room = Room(folder, settings.search_memory_bytes, stream=settings.stream, sequence_length=settings.sequence_length)
    whole = load(settings.model, device, view=engine.view, dtype=DTYPES[settings.dtype], room=room)
    model = engine.held_model(whole)
    (folder / "levels").mkdir(parents=True, exist_ok=True)
    with closing(Store(folder / "worker.sqlite")) as store, swapping(model, expanded_bytes=EXPANDED_BYTES) as swapper:
        yield Bench(settings, model, folder, swapper, store)
