"""Predictions of the original model on a text, and the values of token objectives for a changed model against them.

The original's log-probabilities are computed once and stored as float16, in memory up to a bound and else in a file. They are renormalised when read;
the rounding moves a divergence by less than 1e-5 nats.

Logits are the largest tensor of an evaluation, and every operation on them is bound by memory bandwidth. So both models' logits are processed a few
positions at a time, as many as fit into the processor's cache: intermediate results stay small and fast.
"""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Job, Model
from bitwright.errors import ModelError
from bitwright.objectives.metrics.perplexity import Perplexity
from bitwright.objectives.objective import TokenObjective
from bitwright.objectives.text.tokens import Tokens
from bitwright.progress import Advance, Progress, ignore
from bitwright.whole_files import output_errors, reserve

MEMORY_BOUND_BYTES = 1 << 30
_SEQUENCES_AT_ONCE, _TOKENS_AT_ONCE = 8, 2048  # the smaller of the two
_PIECE_BYTES = 1 << 22  # of float32 logits

OF_MODEL = "this model gives infinite or undefined ones: repair it, or choose another."
OF_CHOICE = "this choice gives infinite or undefined ones: leave its coarsest formats out."


class Reference:
    """Log-probabilities of the original model on a text: float16 `(n_sequences, length, n_vocabulary)`. Those of `sequences`, all by default, are
    computed now, and others when they are asked for by `learn`.

    Raises:
        ModelError: a logit is not finite.
    """

    def __init__(self, model: Model, tokens: Tokens, *, scratch: Path, progress: Progress, sequences: slice = slice(None)) -> None:
        self.tokens = tokens
        self._at_once = _at_once(tokens)
        shape = (*tokens.ids.shape, model.module.config.get_text_config().vocab_size)
        self._rows = _allocate(shape, scratch, min(MEMORY_BOUND_BYTES, model.residence.room_bytes))
        self._losses: dict[int, NDArray[np.float64]] = {}  # of each batch that is computed, by its first sequence
        first, stop, _ = sequences.indices(len(tokens.ids))
        with progress.stage("Computing the original's predictions", tokens.ids[sequences].size) as advance:
            self.learn(model, first, stop, advance)

    def learn(self, model: Model, first: int, stop: int, advance: Advance = ignore) -> None:
        """Compute the predictions on the batches of the sequences from `first` up to `stop` that lack them. The model must have its original weights.

        Raises:
            ModelError: a logit is not finite.
        """
        whole = [slice(start, start + self._at_once) for start in range(first - first % self._at_once, stop, self._at_once)]
        missing = [sequences for sequences in whole if sequences.start not in self._losses]
        jobs = [Job(partial(self._learned, model, sequences), self.tokens.ids[sequences].size) for sequences in missing]
        for sequences, losses in zip(missing, model.each(jobs, advance), strict=True):
            self._losses[sequences.start] = losses

    def has(self, first: int, stop: int) -> bool:
        """Return whether the predictions on the sequences from `first` up to `stop` are computed."""
        return all(start in self._losses for start in range(first - first % self._at_once, stop, self._at_once))

    @property
    def perplexity(self) -> float:
        """Return the original's perplexity on the sequences whose predictions are computed."""
        return Perplexity().summarise(np.concatenate([self._losses[start] for start in sorted(self._losses)])).value

    def _learned(self, model: Model, sequences: slice) -> NDArray[np.float64]:
        """Store the log-probabilities of one batch of sequences, and return the loss of each sequence."""
        ids, loss = self.tokens.ids[sequences], Perplexity()
        rows, following = self._rows[sequences].reshape(ids.size, -1), _following(ids, model.device)
        values = []
        for piece, original in _pieces(_logits(model, ids, OF_MODEL)):
            rows[piece] = original.half().cpu().numpy()
            values.append(loss.token_values(original, original, following[piece]))
        return loss.by_sequence(_at_positions(values, ids))

    @property
    def n_missing(self) -> int:
        """Return the number of tokens whose predictions are not computed."""
        starts = range(0, len(self.tokens.ids), self._at_once)
        return sum(self.tokens.ids[start : start + self._at_once].size for start in starts if start not in self._losses)

    def computed(self, first: int = 0, stop: int | None = None) -> "Reference":  # noqa: ARG002
        """Return itself; see `PendingReference.computed`."""
        return self

    def compare(self, model: Model, objectives: Sequence[TokenObjective], *, first: int = 0, stop: int | None = None) -> list[NDArray[np.float64]]:
        """Compute each of `objectives` for the model with its current weights, at every position of the sequences from `first` up to `stop`:
        `(n, length)` each.

        Raises:
            ModelError: a logit is not finite.
        """
        jobs = [Job(partial(self._compared, model, objectives, sequences), 0) for sequences in self._batches(first, stop)]
        return [np.concatenate(of_objective) for of_objective in zip(*model.each(jobs, ignore), strict=True)]

    def measure(self, model: Model, objectives: Sequence[TokenObjective], *, first: int = 0, stop: int | None = None) -> NDArray[np.float64]:
        """Compute the same, one value for each sequence: `(n, n_objectives)`."""
        return self.measure_each(model, objectives, [_as_it_stands], first=first, stop=stop)[0]

    def measure_each(
        self, model: Model, objectives: Sequence[TokenObjective], loads: Sequence[Callable[[], None]], *, first: int = 0, stop: int | None = None
    ) -> list[NDArray[np.float64]]:
        """Compute the same for several sets of weights, each given to the model by one of `loads`, in one pass over the model's blocks if it is
        streamed: `(n, n_objectives)` for each.
        """
        batches, loaded = self._batches(first, stop), list[Callable[[], None]]()

        def run(load: Callable[[], None], sequences: slice) -> NDArray[np.float64]:
            if model.residence.is_streamed or loaded[-1:] != [load]:  # the weights of a job are its own, those in memory stay
                load()
                loaded.append(load)
            found = self._compared(model, objectives, sequences)
            return np.stack([objective.by_sequence(values) for objective, values in zip(objectives, found, strict=True)], axis=1)

        found = [*model.each([Job(partial(run, load, sequences), 0) for load in loads for sequences in batches], ignore)]
        return [np.concatenate(found[i : i + len(batches)]) for i in range(0, len(found), len(batches))]

    def _batches(self, first: int, stop: int | None) -> list[slice]:
        """Return the batches of the sequences from `first` up to `stop`."""
        return batches_of(self.tokens, first, len(self.tokens.ids[:stop]))

    def _compared(self, model: Model, objectives: Sequence[TokenObjective], sequences: slice) -> list[NDArray[np.float64]]:
        """Compute the objectives for one batch of sequences, see `compare`."""
        ids = self.tokens.ids[sequences]
        logits = _logits(model, ids, OF_CHOICE)
        following, stored = _following(ids, logits.device), self._rows[sequences].reshape(ids.size, -1)
        pieces = []
        for piece, changed in _pieces(logits):
            original = _normalised(stored[piece], logits.device)
            pieces.append([objective.token_values(original, changed, following[piece]) for objective in objectives])
        return [_at_positions(of_objective, ids) for of_objective in zip(*pieces, strict=True)]

    def sequences(self, first: int, n_sequences: int, device: torch.device) -> Torch:
        """Return the log-probabilities of `n_sequences` sequences from `first` on, `(n_sequences, length, n_vocabulary)` float32, normalised."""
        return _normalised(self._rows[first : first + n_sequences], device)

    def discard(self) -> None:
        """Release the memory or the file."""
        self._rows = np.empty((0, *self._rows.shape[1:]), dtype=np.float16)


class PendingReference:
    """Reference on `tokens` of which `compute` computes the sequences that are asked for first, and `complete` all others once they are asked for."""

    def __init__(self, tokens: Tokens, compute: Callable[[slice], Reference], complete: Callable[[Reference], None]) -> None:
        self.tokens, self._compute, self._complete = tokens, compute, complete
        self._known: list[Reference] = []

    def computed(self, first: int = 0, stop: int | None = None) -> Reference:
        """Return the reference with the predictions on the sequences from `first` up to `stop`, which may give the model its original weights."""
        stop = len(self.tokens.ids) if stop is None else stop
        if not self._known:
            self._known.append(self._compute(slice(first, stop)))
        elif not self._known[0].has(first, stop):
            self._complete(self._known[0])
        return self._known[0]

    def discard(self) -> None:
        """Release what was computed."""
        for known in self._known:
            known.discard()
        self._known.clear()


def batches_of(tokens: Tokens, first: int, stop: int) -> list[slice]:
    """Return the batches of the sequences from `first` up to `stop`, which are computed together. They end at the same places whatever `first` is, so
    that a pass over a part of a text computes what one over all of it does.
    """
    step = _at_once(tokens)
    starts = [first, *range(first - first % step + step, stop, step)]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], stop], strict=True) if start < end]


def _at_once(tokens: Tokens) -> int:
    """Return the number of sequences of a batch."""
    return int(np.clip(_TOKENS_AT_ONCE // tokens.ids.shape[1], 1, _SEQUENCES_AT_ONCE))


def require_finite(logits: Torch, otherwise: str) -> Torch:
    """Return `logits` `(..., n_vocabulary)` if all are finite; `otherwise` completes the error message if not.

    Raises:
        ModelError: one is infinite or undefined.
    """
    if not torch.isfinite(logits.sum(dim=-1)).all():  # a sum with an infinite or undefined term is not finite; one pass over memory
        raise ModelError(f"A model's logits must be finite; {otherwise}")
    return logits


def _as_it_stands() -> None:
    """Leave the model's weights as they are."""


@torch.inference_mode()
def _logits(model: Model, ids: NDArray[np.int64], otherwise: str) -> Torch:
    """Return the logits as float32 `(n · length, n_vocabulary)`."""
    logits: Torch = model.module(torch.from_numpy(ids).to(model.device), use_cache=False).logits.float()
    return require_finite(logits, otherwise).flatten(0, 1)


def _pieces(logits: Torch) -> Iterator[tuple[slice, Torch]]:
    """Yield a few positions at a time, with their log-probabilities `(n, n_vocabulary)`."""
    step = max(1, _PIECE_BYTES // (4 * logits.shape[-1]))
    for start in range(0, len(logits), step):
        piece = slice(start, start + step)
        yield piece, logits[piece].log_softmax(dim=-1)


def _normalised(rows: NDArray[np.float16], device: torch.device) -> Torch:
    return torch.from_numpy(rows).to(device).float().log_softmax(dim=-1)


def _following(ids: NDArray[np.int64], device: torch.device) -> Torch:
    """Return the token after each position, `(n · length,)`; after a sequence's last comes its first."""
    return torch.from_numpy(np.roll(ids, -1, axis=1).ravel()).to(device)


def _at_positions(pieces: tuple[Torch, ...] | list[Torch], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Join the values of consecutive positions as `(n, length)`."""
    values: NDArray[np.float64] = torch.cat(pieces).double().cpu().numpy().reshape(ids.shape)
    return values


def _allocate(shape: tuple[int, ...], scratch: Path, bound_bytes: int) -> NDArray[np.float16]:
    """Allocate an array of `shape`: above the memory bound in an unnamed file, deleted when it is released or the process ends.

    Raises:
        OutputError: the disk is full; running out of space while a mapped file is filled would kill the process.
    """
    n_bytes = 2 * math.prod(shape)
    if n_bytes <= bound_bytes:
        return np.empty(shape, dtype=np.float16)
    with output_errors(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch, prefix=".bitwright-") as file:
            reserve(file.fileno(), n_bytes)
            return np.memmap(file, dtype=np.float16, mode="r+", shape=shape)
