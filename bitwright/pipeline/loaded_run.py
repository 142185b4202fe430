"""Run with its model loaded: texts, packed tensors, importance and routing, each computed on first use and stored in the run folder."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import (
    UNMOVED,
    Codec,
    DecodeOnlyCodec,
    DiskBound,
    Floats,
    Model,
    PackedTensors,
    PartOrder,
    Room,
    cut_importance,
    load,
    needs_moments,
    ordered_importance,
    ordered_model,
    part_order,
    read_imatrix,
    write_imatrix,
)
from bitwright.engines import Container, Engine, engine_named
from bitwright.errors import RunError, UserError
from bitwright.methods import structure_method
from bitwright.objectives import (
    NO_ROUTING,
    MomentsOfText,
    PendingReference,
    Reference,
    Routing,
    Shape,
    Store,
    Texts,
    Tokens,
    added,
    cached_routing,
    collect_importance,
    embedding_rows,
    given_texts,
    is_mixture,
    routing_key,
    sample_texts,
    sample_with_importance,
)
from bitwright.pipeline.calibration.mixture import Share, mixed, sequences_by_text, shares_in, shares_of, store_origins
from bitwright.pipeline.calibration.sampled_importance import sampled_importance, store_sampled_importance
from bitwright.pipeline.finishing.step_files import lasting_matrices
from bitwright.pipeline.run import CHANNEL_SCORES, DATABASE, IMATRIX, IMATRIX_DIGEST, LEVELS, PACKED, QUANTIZED, REORDERED, STEPS
from bitwright.pipeline.settings import DTYPES, SELF, Settings
from bitwright.pipeline.threads import keep_threads, use_threads
from bitwright.pipeline.workers.bench import identity_of
from bitwright.pipeline.workers.workers import Workers
from bitwright.predictors import ChannelScoring
from bitwright.progress import Progress
from bitwright.spaces import ORDERED_KINDS, StructureKind, Target
from bitwright.written_files import digest


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """Run with its model loaded: the model `whole` as it was loaded, the store, the texts, and every tensor packed in every format.

    `order` is that of the heads and channels of its tensors, see `reordered`. With `workers`, choices are measured, sweeps made and tensors quantized
    by them.

    Reading `texts` or `levels` raises `UserError` if the text or the importance matrix of the settings cannot be used.
    """

    settings: Settings
    folder: Path
    whole: Model
    store: Store
    progress: Progress
    workers: Workers | None = None
    order: PartOrder = UNMOVED

    @cached_property
    def model(self) -> Model:
        """The model with its tensors as the target holds them, their heads and channels in the run's order."""
        held = self.engine.held_model(self.whole)
        return ordered_model(held, self.order) if self.order.digest else held

    @cached_property
    def structure(self) -> tuple[StructureKind, ...]:
        """Kinds of parts that may be taken away of this model beside the formats; see `Engine.kinds_taken`."""
        kinds = self.engine.kinds_taken(self.model.source, self.settings.structure)
        return tuple(kind for kind in kinds if kind not in self.engine.absences)

    @cached_property
    def reordered(self) -> "LoadedRun":
        """The run with heads and channels, those that may be taken away, in the order of what they give on the calibration text, or of the scores of
        its method.
        """
        kinds = [kind for kind in self.structure if kind in ORDERED_KINDS]
        return replace(self, order=part_order(self.model.source, _imatrix(self), kinds, self.channel_scores)) if kinds else self

    @property
    def channel_scores_path(self) -> Path:
        """The file of `channel_scores`."""
        return self.folder / STEPS / CHANNEL_SCORES

    @cached_property
    def channel_scores(self) -> dict[str, Floats]:
        """Scores `(1, n_channels)` of feed-forward channels in the order of the source, by the name of their down matrix, of a method that has its
        own; none of any other. The model must have its original weights where they are made first.
        """
        method = structure_method(self.settings.structure_method)
        if method is None or method.scores is None:
            return {}
        return lasting_matrices(self.store, self.channel_scores_path, partial(_scored, self, method.scores))

    @cached_property
    def engine(self) -> Engine:
        """The engine that will load the finished model."""
        return self.settings.engine

    @property
    def target(self) -> Target:
        """The engine's formats and rules."""
        return self.engine.target

    @cached_property
    def container(self) -> Container:
        """The file format in which the finished model is written."""
        return self.engine.container(self.settings.model)

    @cached_property
    def texts(self) -> Texts:
        """Calibration and held-out tokens."""
        return _texts(self.settings, self.whole, store=self.store, progress=self.progress)

    @cached_property
    def levels(self) -> PackedTensors:
        """Every tensor packed in every format, quantized with the run's importance matrix.

        Codes that depend on calibration text (GPTQ) cannot be reproduced, and are only read once they were measured. All others are a cache.
        """
        folder, source = self.folder / (REORDERED if self.order.digest else LEVELS), self.model.source
        return PackedTensors(folder, source, self._codec(), _importance(self), None if needs_moments(self.settings.rounding) else self._bound(folder))

    def _bound(self, folder: Path) -> DiskBound:
        """Return the bound on packed tensors: the settings', or twice the bytes of the source."""
        tensors = self.model.source.tensors
        n_bytes = self.settings.disk_limit_bytes or 2 * sum(self.model.source.stored_bytes(tensor) for tensor in tensors)
        return DiskBound(folder, n_bytes, tensors=frozenset(tensor.name for tensor in tensors))

    def _codec(self) -> Codec:
        name = self.settings.rounding
        if not needs_moments(name):
            return self.engine.codec(name, {})
        codec = self.engine.codec(name, self.moments)
        return DecodeOnlyCodec(codec, self.folder) if self.store.has_array(PACKED) else codec

    @cached_property
    def moments(self) -> MomentsOfText:
        """Second moments of the inputs of every tensor on the calibration text, a few of which are kept at a time; see there."""
        return MomentsOfText(self.model, self.texts.calibration)

    @cached_property
    def routing(self) -> Routing:
        """Routing of the calibration text to experts."""
        if not is_mixture(self.model):
            return NO_ROUTING
        tokens = self.texts.calibration
        parts = [Tokens(tokens.ids[rows], tokens.text) for rows in sequences_by_text(self.store)] or [tokens]
        if all(self.store.has_array(routing_key(part.ids)) for part in (tokens, *parts)):
            return cached_routing(self.model, tokens, store=self.store, progress=self.progress)
        with timed(self.store, "routing", tokens.n_tokens):
            found = added([cached_routing(self.model, part, store=self.store, progress=self.progress) for part in parts])  # one pass in total
            self.store.put_array(routing_key(tokens.ids), found.to_array())
            return found

    def routing_of(self, sequences: NDArray[np.int64]) -> Routing:
        """Return the routing of some calibration sequences, given by index."""
        tokens = self.texts.calibration
        part = Tokens(tokens.ids[sequences], tokens.text)
        return cached_routing(self.model, part, store=self.store, progress=self.progress) if is_mixture(self.model) else NO_ROUTING


def set_up(settings: Settings, folder: Path, *, device: str, progress: Progress, workers: Workers | None = None) -> LoadedRun:
    """Load the model, and start a run in `folder` or continue the one that is there. `workers` have or load the same model.

    Raises:
        UserError: the model or device cannot be used, or the run in the folder was started with other settings.
    """
    require_device(device)
    settings, store = settings.on_device(device), Store(folder / DATABASE)
    use_threads(settings.threads, store, progress)
    with timed(store, "load"), progress.stage("Loading the model", 1) as advance:
        room = Room(folder, settings.search_memory_bytes, stream=settings.stream, sequence_length=settings.sequence_length)
        model = load(settings.model, device, view=engine_named(settings.target).view, dtype=DTYPES[settings.dtype], room=room)
        advance(1)
    if model.residence.is_streamed:
        settings.require_streamable()
    if model.quantized:
        progress.note(f"The source has {model.quantized}: a finer format stores its rounding too.")
        store.put_text(QUANTIZED, model.quantized)
    for sentence in model.notes:
        progress.note(sentence)
    store.check_settings(settings.identity(model.source))
    store.put_text("settings", settings.to_json())
    keep_threads(settings.threads, store)
    if workers is not None:
        workers.require(identity_of(model.source.fingerprint))
    return LoadedRun(settings, folder, model, store, progress, workers)


def require_device(name: str) -> None:
    """Raise if torch cannot use a device here.

    Raises:
        UserError: the name is unknown, the hardware is missing, or this build of torch does not support it.
    """
    try:
        torch.ones(1, device=name).sum().item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(f"The device must be one that torch can use here; '{name}' is not ({reason}): choose cpu, or another --device.") from error


@contextmanager
def referenced(loaded: LoadedRun, tokens: Tokens) -> Iterator[Reference]:
    """Compute the original's predictions on a text, for use inside the `with` block. The model must have its original weights."""
    reference = _reference(loaded, tokens)
    try:
        yield reference
    finally:
        reference.discard()


@contextmanager
def referenced_if_needed(loaded: LoadedRun, tokens: Tokens, restore: Callable[[], None]) -> Iterator[PendingReference]:
    """Compute the original's predictions on a text when they are first needed, after `restore` has given the model its original weights."""

    def compute(sequences: slice) -> Reference:
        restore()
        return _reference(loaded, tokens, sequences)

    def complete(reference: Reference) -> None:
        restore()
        n_tokens = reference.n_missing
        with timed(loaded.store, "reference", n_tokens), loaded.progress.stage("Computing the original's predictions", n_tokens) as advance:
            reference.learn(loaded.model, 0, len(tokens.ids), advance)

    pending = PendingReference(tokens, compute, complete)
    try:
        yield pending
    finally:
        pending.discard()


def _reference(loaded: LoadedRun, tokens: Tokens, sequences: slice = slice(None)) -> Reference:
    with timed(loaded.store, "reference", tokens.ids[sequences].size):
        return Reference(loaded.model, tokens, scratch=loaded.folder, progress=loaded.progress, sequences=sequences)


@dataclass
class TimedTokens:
    """Tokens that went through the model, which the timed `with` block may set if they are not known before."""

    n_tokens: int


@contextmanager
def timed(store: Store, name: str, n_tokens: int = 0) -> Iterator[TimedTokens]:
    """Store the cost of the `with` block in the run: seconds, tokens, and the process's peak memory so far."""
    started, passed = time.perf_counter(), TimedTokens(n_tokens)
    yield passed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    store.put_stage(name, seconds=time.perf_counter() - started, n_tokens=passed.n_tokens, peak_memory_bytes=peak)


def _texts(settings: Settings, model: Model, *, store: Store, progress: Progress) -> Texts:
    if not store.has_array("held-out tokens"):
        texts, importance = _calibration(settings, model, store=store, progress=progress)
        if settings.held_out:
            other = _given_to(model, settings.held_out, settings.shape.all_held_out(), column=settings.text_column)
            texts = Texts(texts.calibration, other.held_out)
        store_sampled_importance(store, importance)
        for name, tokens in (("calibration", texts.calibration), ("held-out", texts.held_out)):
            store.put_text(f"{name} text", tokens.text)
            store.put_array(f"{name} tokens", tokens.ids)
    found = Texts(calibration=_stored_tokens(store, "calibration"), held_out=_stored_tokens(store, "held-out"))
    report_missing(found, settings.shape, progress)
    return found


def _stored_tokens(store: Store, name: str) -> Tokens:
    return Tokens(store.array(f"{name} tokens").astype(np.int64), store.text(f"{name} text"))


def _calibration(settings: Settings, model: Model, *, store: Store, progress: Progress) -> tuple[Texts, dict[str, Floats]]:
    """Return the calibration text, with held-out sequences from the part of it that is not calibrated on, and the importance matrix of a text that
    the model writes alone, where its sampling shows it.
    """
    shares = shares_in(settings.calibration)
    if [share.name for share in shares] == [SELF]:
        with timed(store, "sample", (settings.n_calibration + settings.n_held_out) * settings.sequence_length):
            return sample_with_importance(model, settings.shape, seed=settings.seed, progress=progress)
    shapes = shares_of(shares, settings.shape)
    taken = [_taken(share, settings, model, shape=shape, store=store, progress=progress) for share, shape in zip(shares, shapes, strict=True)]
    if len(taken) == 1:
        return taken[0], {}
    parts = list(zip(shares, taken, strict=True))
    texts, origins = mixed(parts, counts=[shape.n_calibration for shape in shapes], seed=settings.seed)
    store_origins(store, shares, origins)
    return texts, {}


def _taken(share: Share, settings: Settings, model: Model, *, shape: Shape, store: Store, progress: Progress) -> Texts:
    if share.name != SELF:
        return _given_to(model, share.name, shape, column=settings.text_column)
    with timed(store, "sample", (shape.n_calibration + shape.n_held_out) * shape.length):
        return text_named(share.name, model, shape, seed=settings.seed, progress=progress)


def text_named(name: str, model: Model, shape: Shape, *, seed: int, progress: Progress, column: str = "") -> Texts:
    """Return the sequences of a file or dataset, whose text is in `column`, or if `name` is `self`, sequences sampled from the model.

    Raises:
        TextError: there is no such text, it is too short, or it has tokens that the model does not have.
    """
    if name == SELF:
        return sample_texts(model, shape, seed=seed, progress=progress)
    return _given_to(model, name, shape, column=column)


def report_missing(texts: Texts, shape: Shape, progress: Progress) -> None:
    """Report each text that has fewer sequences than requested."""
    asked = (("calibration", texts.calibration, shape.n_calibration), ("held-out", texts.held_out, shape.n_held_out))
    for kind, tokens, n_asked in asked:
        if len(tokens.ids) < n_asked:
            progress.note(f"The {kind} text has {len(tokens.ids):,} of the {n_asked:,} sequences that were asked for: {tokens.text}.")


def _given_to(model: Model, name: str, shape: Shape, *, column: str) -> Texts:
    return given_texts(name, model.tokenizer, shape, n_rows=embedding_rows(model), column=column)


def _importance(loaded: LoadedRun) -> dict[str, Floats]:
    """Return the importance of the input channels of the tensors as the target holds them; see `_imatrix`."""
    return ordered_importance(cut_importance(_imatrix(loaded), loaded.whole.tensors, loaded.target.cut), loaded.order)


def _scored(loaded: LoadedRun, scores: ChannelScoring) -> dict[str, Floats]:
    text = loaded.texts.calibration
    with timed(loaded.store, "channel scores", text.n_tokens):
        found = scores(loaded.model, text, seed=loaded.settings.seed, progress=loaded.progress)
    return {name: values[None].astype(np.float32) for name, values in found.items()}


def _imatrix(loaded: LoadedRun) -> dict[str, Floats]:
    """Return the importance matrix from the run's folder; it is collected again if it is missing or was changed.

    Raises:
        RunError: the matrix collected now differs from the one that the run's tensors were quantized with.
    """
    path, whole = loaded.folder / IMATRIX, loaded.whole.tensors
    stored = loaded.store.text(IMATRIX_DIGEST) if loaded.store.has_text(IMATRIX_DIGEST) else ""
    if not stored or not path.is_file() or digest(path) != stored:
        write_imatrix(path, _made_importance(loaded), text=loaded.texts.calibration.text)
        if stored and digest(path) != stored:
            raise RunError(
                f"A run continues only with the importance matrix it began with; {path} was changed, and collected again it differs: search again "
                "with another --out."
            )
        loaded.store.put_text(IMATRIX_DIGEST, digest(path))
    return read_imatrix(path, whole)


def _made_importance(loaded: LoadedRun) -> dict[str, Floats]:
    if loaded.settings.imatrix:
        return read_imatrix(Path(loaded.settings.imatrix), loaded.whole.tensors)
    text = loaded.texts.calibration  # sampling it may have shown the importance
    if found := sampled_importance(loaded.store, loaded.whole.tensors):
        return found
    with timed(loaded.store, "imatrix", text.n_tokens):
        return collect_importance(loaded.whole, text, progress=loaded.progress)
