"""How far a changed model is from the original: KL divergence, perplexity and top-1 agreement on held-out text.

KL(original ‖ changed) = Σ p (log p − log q) at every position, averaged over the tokens of each sequence and then over sequences.
The original's log-probabilities are computed once and kept as float16, in memory up to a bound and else in a file; renormalised when they are
read, the rounding moves a divergence by less than 1e-5 nats.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Levels, Model, Weights, applied, cached_in, planned_weights
from bitwright.errors import ModelError
from bitwright.objectives.measurement import Measurement
from bitwright.objectives.tokens import Tokens
from bitwright.progress import Progress
from bitwright.spaces import CacheTypes, Choice, Space, chosen_cache

MEMORY_BOUND_BYTES = 1 << 30
_SEQUENCES_AT_ONCE, _TOKENS_AT_ONCE = 8, 2048  # whichever is less


class Reference:
    """The original model's log-probabilities on the held-out tokens: float16 `(n_sequences, length, n_vocabulary)`.

    Raises:
        ModelError: a logit is not finite.
    """

    def __init__(self, model: Model, tokens: Tokens, *, scratch: Path, progress: Progress) -> None:
        self.tokens, self._file = tokens, scratch / "reference.f16"
        self._at_once = int(np.clip(_TOKENS_AT_ONCE // tokens.ids.shape[1], 1, _SEQUENCES_AT_ONCE))
        self._rows = _allocate((*tokens.ids.shape, model.module.config.get_text_config().vocab_size), self._file)
        losses = []
        with progress.stage("Reading the original's predictions", tokens.n_tokens) as advance:
            for i, batch in enumerate(tokens.batches(self._at_once)):
                log_probabilities = _log_probabilities(model, batch)
                self._rows[i * self._at_once :][: len(batch)] = log_probabilities.half().cpu().numpy()
                losses.append(_label_losses(log_probabilities, batch))
                advance(batch.size)
        self.perplexity = float(np.exp(np.concatenate(losses).mean()))

    def batches(self, device: torch.device) -> Iterator[tuple[NDArray[np.int64], Torch]]:
        """Some sequences at a time, as many as are read at once: their tokens `(≤ 8, length)` and log-probabilities `(≤ 8, length, n_vocabulary)`,
        float32, normalised.
        """
        for i, batch in enumerate(self.tokens.batches(self._at_once)):
            yield batch, self.sequences(i * self._at_once, self._at_once, device)

    def sequences(self, first: int, n_sequences: int, device: torch.device) -> Torch:
        """Log-probabilities of `n_sequences` sequences from the index `first` on, `(n_sequences, length, n_vocabulary)`, float32, normalised."""
        rows = torch.from_numpy(np.array(self._rows[first : first + n_sequences]))
        return rows.to(device).float().log_softmax(dim=-1)

    def discard(self) -> None:
        """Remove the file, if there is one."""
        self._file.unlink(missing_ok=True)


class Divergence:
    """Measures choices of a space: `divergence(choice)` is the objective that a search minimises."""

    def __init__(self, model: Model, levels: Levels, *, space: Space, reference: Reference) -> None:
        self._model, self._levels, self._space, self._reference = model, levels, space, reference

    def __call__(self, choice: Choice) -> Measurement:
        """Put the choice's weights into the model and its types into the cache, run the held-out text, and compare with the original."""
        by_name = {form.name: form for form in self._space.formats}
        formats = {tensor: by_name[name] for tensor, name in self._space.names(choice).items()}
        return self.of_choice(choice, planned_weights(self._model, self._levels, formats=formats))

    def of_choice(self, choice: Choice, weights: Weights) -> Measurement:
        """The same of a choice that comes to the model as `weights`."""
        started = time.perf_counter()
        with applied(self._model, weights), cached_in(self._model, chosen_cache(self._space, choice)):
            nats, losses, agreements = _compare(self._model, self._reference)
        return Measurement(
            choice=tuple(int(i) for i in choice),
            sequence_nats=tuple(nats.tolist()),
            perplexity=float(np.exp(losses.mean())),
            top1_agreement=float(agreements.mean()),
            n_tokens=self._reference.tokens.n_tokens,
            seconds=time.perf_counter() - started,
        )

    def of_one(self, unit: int, form: int) -> float:
        """Divergence in nats per token with one unit in one format and all others as in the original."""
        formats = {tensor.name: self._space.formats[form] for tensor in self._space.units[unit].tensors}
        return self.of_weights(planned_weights(self._model, self._levels, formats=formats))

    def of_cache(self, types: CacheTypes) -> float:
        """Divergence in nats per token of the original's weights with keys and values in these types."""
        return float(cache_divergence(self._model, types, self._reference).mean())

    def of_weights(self, weights: Weights) -> float:
        """Divergence in nats per token with any `weights` in place of some of the original's."""
        return float(self.by_sequence(weights).mean())

    def by_sequence(self, weights: Weights) -> NDArray[np.float64]:
        """The same for each sequence `(n_sequences,)`."""
        with applied(self._model, weights):
            nats, _, _ = _compare(self._model, self._reference)
        return nats


def cache_divergence(model: Model, types: CacheTypes, reference: Reference) -> NDArray[np.float64]:
    """Divergence in nats at each token `(n_sequences, length)` of the model as it is with its keys and values in these types."""
    nats = []
    with cached_in(model, types):
        for batch, p in reference.batches(model.device):
            q = _log_probabilities(model, batch)
            nats.append((p.exp() * (p - q)).sum(dim=-1).double().cpu().numpy())
    return np.concatenate(nats)


@torch.inference_mode()
def next_token_log_probabilities(model: Model, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Log-probabilities `(n_contexts, n_vocabulary)` of the token after each context `(length,)`; contexts may differ in length."""
    found = []
    for start in range(0, len(contexts), _SEQUENCES_AT_ONCE):
        batch = contexts[start : start + _SEQUENCES_AT_ONCE]
        lengths = [len(context) for context in batch]
        # What stands behind a context cannot change it in a causal model, so short ones are filled up with any token.
        ids = np.stack([np.pad(context, (0, max(lengths) - len(context))) for context in batch])
        hidden = torch.from_numpy(ids).to(model.device)
        keep = torch.tensor(sorted({length - 1 for length in lengths}), device=model.device)
        logits = model.module(hidden, use_cache=False, logits_to_keep=keep).logits.double()
        last = [logits[i, int((keep == length - 1).nonzero())] for i, length in enumerate(lengths)]
        found.append(torch.stack(last).log_softmax(dim=-1).cpu().numpy())
    return np.concatenate(found)


def _compare(model: Model, reference: Reference) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean divergence of each sequence `(n,)`, loss of each label, and agreement of each top token, over all tokens."""
    nats, losses, agreements = [], [], []
    for batch, p in reference.batches(model.device):
        q = _log_probabilities(model, batch)
        nats.append((p.exp() * (p - q)).sum(dim=-1).double().mean(dim=1).cpu().numpy())
        agreements.append((p.argmax(dim=-1) == q.argmax(dim=-1)).double().cpu().numpy().ravel())
        losses.append(_label_losses(q, batch))
    return np.concatenate(nats), np.concatenate(losses), np.concatenate(agreements)


@torch.inference_mode()
def _log_probabilities(model: Model, ids: NDArray[np.int64]) -> Torch:
    logits: Torch = model.module(torch.from_numpy(ids).to(model.device), use_cache=False).logits.float()
    if not torch.isfinite(logits).all():
        raise ModelError("A model's logits must be finite; this model gives infinite or undefined ones: repair it, or choose another.")
    return logits.log_softmax(dim=-1)


def _label_losses(log_probabilities: Torch, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """−log p of every token but the first of each sequence, flat."""
    labels = torch.from_numpy(ids[:, 1:]).to(log_probabilities.device)
    return -log_probabilities[:, :-1].gather(-1, labels[..., None]).double().cpu().numpy().ravel()


def _allocate(shape: tuple[int, ...], path: Path) -> NDArray[np.float16]:
    if 2 * np.prod(shape) <= MEMORY_BOUND_BYTES:
        return np.empty(shape, dtype=np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    return np.memmap(path, dtype=np.float16, mode="w+", shape=shape)
