"""KL divergence from the original model, perplexity and top-1 agreement of a changed model on a text.

The divergence is averaged over the tokens of each sequence and then over sequences; see `KullbackLeibler`, `Perplexity` and `Flips`.
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import Levels, Model, Weights, applied, cached_in, planned_weights
from bitwright.objectives.measurement import Measurement
from bitwright.objectives.metrics.flips import Flips
from bitwright.objectives.metrics.kullback_leibler import KullbackLeibler
from bitwright.objectives.metrics.perplexity import Perplexity
from bitwright.objectives.reference import Reference
from bitwright.spaces import CacheTypes, Choice, Space, chosen_cache

_SEQUENCES_AT_ONCE = 8
_NATS, _LOSS, _FLIPS = KullbackLeibler(), Perplexity(), Flips()


class Divergence:
    """Measure choices of a space: `divergence(choice)` is the objective that a search minimises."""

    def __init__(self, model: Model, levels: Levels, *, space: Space, reference: Reference) -> None:
        self._model, self._levels, self._space, self._reference = model, levels, space, reference

    def __call__(self, choice: Choice) -> Measurement:
        """Load the choice's weights and cache types into the model, run the text, and compare the predictions with the original's."""
        by_name = {form.name: form for form in self._space.formats}
        formats = {tensor: by_name[name] for tensor, name in self._space.names(choice).items()}
        return self.of_choice(choice, planned_weights(self._model, self._levels, formats=formats))

    def of_choice(self, choice: Choice, weights: Weights) -> Measurement:
        """Measure a choice whose weights are given as `weights`; its cache types are loaded too."""
        started = time.perf_counter()
        with applied(self._model, weights), cached_in(self._model, chosen_cache(self._space, choice)):
            nats, losses, flips = self._reference.compare(self._model, (_NATS, _LOSS, _FLIPS))
        return Measurement(
            choice=tuple(int(i) for i in choice),
            sequence_nats=tuple(_NATS.by_sequence(nats).tolist()),
            perplexity=_LOSS.summarise(_LOSS.by_sequence(losses)).value,
            top1_agreement=1 - float(flips.mean()),
            n_tokens=self._reference.tokens.n_tokens,
            seconds=time.perf_counter() - started,
        )

    def of_one(self, unit: int, form: int) -> float:
        """Return the divergence in nats per token with one unit in one format and all others as in the original."""
        formats = {tensor.name: self._space.formats[form] for tensor in self._space.units[unit].tensors}
        return self.weight_space(planned_weights(self._model, self._levels, formats=formats))

    def of_cache(self, types: CacheTypes) -> float:
        """Return the divergence in nats per token of the original weights with keys and values cached in these types."""
        return float(cache_divergence(self._model, types, self._reference).mean())

    def weight_space(self, weights: Weights) -> float:
        """Return the divergence in nats per token with `weights` in place of the original's of the same names."""
        return float(self.by_sequence(weights).mean())

    def by_sequence(self, weights: Weights) -> NDArray[np.float64]:
        """Return the divergence of each sequence `(n_sequences,)`, see `weight_space`."""
        with applied(self._model, weights):
            return _NATS.by_sequence(_nats(self._model, self._reference))


def cache_divergence(model: Model, types: CacheTypes, reference: Reference) -> NDArray[np.float64]:
    """Return the divergence in nats at each token `(n_sequences, length)` of the model with its keys and values cached in these types."""
    with cached_in(model, types):
        return _nats(model, reference)


def _nats(model: Model, reference: Reference) -> NDArray[np.float64]:
    """Return the divergence in nats at each token `(n_sequences, length)`."""
    (nats,) = reference.compare(model, (_NATS,))
    return nats


@torch.inference_mode()
def next_token_log_probabilities(model: Model, contexts: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the log-probabilities `(n_contexts, n_vocabulary)` of the token after each context `(length,)`; contexts may differ in length."""
    found = []
    for start in range(0, len(contexts), _SEQUENCES_AT_ONCE):
        batch = contexts[start : start + _SEQUENCES_AT_ONCE]
        lengths = [len(context) for context in batch]
        # A causal model cannot see tokens after the context, so short contexts are padded at the end with any token.
        ids = np.stack([np.pad(context, (0, max(lengths) - len(context))) for context in batch])
        hidden = torch.from_numpy(ids).to(model.device)
        keep = torch.tensor(sorted({length - 1 for length in lengths}), device=model.device)
        logits = model.module(hidden, use_cache=False, logits_to_keep=keep).logits.double()
        last = [logits[i, int((keep == length - 1).nonzero())] for i, length in enumerate(lengths)]
        found.append(torch.stack(last).log_softmax(dim=-1).cpu().numpy())
    return np.concatenate(found)
