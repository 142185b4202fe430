"""A run with its model loaded: what measuring needs, made once, each piece kept in the run folder."""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitwright.compress import Floats, GgmlCodec, Levels, Model, load, read_imatrix, write_imatrix
from bitwright.objectives import (
    Divergence,
    Reference,
    Store,
    Texts,
    Tokens,
    collect_importance,
    dataset_documents,
    read_documents,
    sample_texts,
    split_texts,
)
from bitwright.pipeline.run import DATABASE, IMATRIX, LEVELS
from bitwright.pipeline.settings import SELF, Settings
from bitwright.progress import Progress
from bitwright.spaces import Choice, Space


@dataclass(frozen=True, eq=False)
class Workbench:
    """The model, its packed levels, the texts and the store of one run."""

    settings: Settings
    folder: Path
    model: Model
    levels: Levels
    texts: Texts
    store: Store
    progress: Progress

    def measure(self, space: Space, choices: Sequence[Choice]) -> None:
        """Measure on held-out text those of `choices` that the run has not measured yet, one transaction each."""
        known = {measurement.choice for measurement in self.store.measurements()}
        pending = [choice for choice in choices if tuple(choice.tolist()) not in known]
        if not pending:
            return
        held_out = self.texts.held_out
        with timed(self.store, "reference", held_out.n_tokens):
            reference = Reference(self.model, held_out, scratch=self.folder, progress=self.progress)
        self.store.put_text("reference perplexity", repr(reference.perplexity))
        objective = Divergence(self.model, self.levels, space=space, reference=reference)
        with self.progress.stage("Measuring candidates on held-out text", len(pending)) as advance:
            for choice in pending:
                with timed(self.store, "candidates", held_out.n_tokens):
                    self.store.put(objective(choice))
                advance(1)
        reference.discard()


def set_up(settings: Settings, folder: Path, *, device: str, progress: Progress) -> Workbench:
    """Load the model and make the texts and the importance matrix, or take them from the run folder where they are already there.

    Raises:
        UserError: whatever of the settings cannot be used, or a run folder that was begun with others.
    """
    store = Store(folder / DATABASE)
    with timed(store, "load"), progress.stage("Loading the model", 1) as advance:
        model = load(settings.model, device)
        advance(1)
    store.agree(settings.identity(model.source))
    store.put_text("settings", settings.to_json())
    texts = _texts(settings, model, store=store, progress=progress)
    importance = _importance(settings, model, folder=folder, texts=texts, store=store, progress=progress)
    return Workbench(settings, folder, model, Levels(folder / LEVELS, model.source, GgmlCodec(), importance), texts, store, progress)


@contextmanager
def timed(store: Store, name: str, n_tokens: int = 0) -> Iterator[None]:
    """Keep in the run what the block cost: seconds, tokens, and the process's peak memory so far."""
    started = time.perf_counter()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    store.put_stage(name, seconds=time.perf_counter() - started, n_tokens=n_tokens, peak_memory_bytes=peak)


def _texts(settings: Settings, model: Model, *, store: Store, progress: Progress) -> Texts:
    if not store.has_array("held-out tokens"):
        shape = settings.shape
        if settings.calibration == SELF:
            with timed(store, "sample", (shape.n_calibration + shape.n_held_out) * shape.length):
                texts = sample_texts(model, shape, seed=settings.seed, progress=progress)
        else:
            texts = split_texts(_documents(settings.calibration), model.tokenizer, shape, name=Path(settings.calibration).name)
        if settings.held_out:
            other = split_texts(_documents(settings.held_out), model.tokenizer, shape.all_held_out(), name=Path(settings.held_out).name)
            texts = Texts(texts.calibration, other.held_out)
        for name, tokens in (("calibration", texts.calibration), ("held-out", texts.held_out)):
            store.put_text(f"{name} text", tokens.text)
            store.put_array(f"{name} tokens", tokens.ids)
    parts = (Tokens(store.array(f"{name} tokens").astype(np.int64), store.text(f"{name} text")) for name in ("calibration", "held-out"))
    return Texts(*parts)


def _documents(name: str) -> list[str]:
    path = Path(name)
    return read_documents(path) if path.exists() or path.suffix else dataset_documents(name)


def _importance(settings: Settings, model: Model, *, folder: Path, texts: Texts, store: Store, progress: Progress) -> dict[str, Floats]:
    path = folder / IMATRIX
    if not path.exists():
        if settings.imatrix:
            importance = read_imatrix(Path(settings.imatrix), model.tensors)
        else:
            with timed(store, "imatrix", texts.calibration.n_tokens):
                importance = collect_importance(model, texts.calibration, progress=progress)
        write_imatrix(path, importance, text=texts.calibration.text)
    return read_imatrix(path, model.tensors)
