"""A model's module with the weights of a choice, and measurements made or stored, beside what the contracts measure with."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from bitwright.compress import Model, PackedTensors, Weights, choice_loader, planned_weights, quantized_cache, swapping
from bitwright.objectives import QUALITY, Evaluator, KullbackLeibler, Measurement, Reference, Store, Tokens, is_mixture
from bitwright.objectives.evaluator import text_key
from bitwright.predictors.sensitivity.text_divergence import divergence
from bitwright.spaces import CacheTypes, Choice, Space
from bitwright.testing.measuring import levels_of, random_tokens, space_of, uniform, weights_of

__all__ = ["changed", "levels_of", "random_tokens", "space_of", "uniform", "weights_of"]


class Divergence:
    """Divergence on a whole text: of choices by an `Evaluator` with a store of its own, of weights and single units as proxies do."""

    def __init__(self, model: Model, levels: PackedTensors, *, space: Space, reference: Reference) -> None:
        self._model, self._levels, self._space, self._reference = model, levels, space, reference

    def __call__(self, choice: Choice) -> Measurement:
        with TemporaryDirectory() as folder, swapping(self._model) as swapper:
            store, load = Store(Path(folder) / "run.sqlite"), choice_loader(swapper, self._model, self._levels, self._space)
            evaluator = Evaluator(self._model, load, reference=self._reference, objectives=QUALITY, store=store)
            found = evaluator(choice, evaluator.n_sequences)
            store.close()
            return found

    def of_one(self, unit: int, form: int) -> float:
        """Divergence with one unit in a format, all others original."""
        formats = {tensor.name: self._space.formats[form] for tensor in self._space.units[unit].tensors}
        return self.with_weights(planned_weights(self._model, self._levels, formats=formats))

    def of_cache(self, types: CacheTypes) -> float:
        """Divergence with the cache in these types."""
        with quantized_cache(self._model, types):
            return self.with_weights({})

    def with_weights(self, weights: Weights) -> float:
        """Divergence with some weights replaced."""
        return divergence(self._model, weights, self._reference)


def cache_divergence(model: Model, types: CacheTypes, reference: Reference) -> NDArray[np.float64]:
    """The divergence at each token `(n_sequences, length)` with keys and values cached in these types."""
    with quantized_cache(model, types):
        return reference.compare(model, (KullbackLeibler(),))[0]


def measurement_of(choice: Sequence[int], nats: Sequence[float]) -> Measurement:
    """A measurement of the quality of a choice."""
    by_sequence = np.column_stack([nats, np.zeros(len(nats)), np.zeros(len(nats))])
    estimates = {objective.name: objective.summarise(column) for objective, column in zip(QUALITY, by_sequence.T, strict=True)}
    return Measurement(tuple(int(i) for i in choice), estimates, by_sequence, len(nats), len(nats), 1.0)


def put_quality(store: Store, choice: Sequence[int], nats: Sequence[float], rounding: str = "") -> None:
    """Store the quality of a choice on a held-out text of as many sequences of one token, which is stored too."""
    tokens = Tokens(np.zeros((len(nats), 1), dtype=np.int64), "zeros")
    store.put_array("held-out tokens", tokens.ids)
    store.put_text("held-out text", tokens.text)
    columns = {"kl": np.array(nats), "perplexity": np.zeros(len(nats)), "flips": np.zeros(len(nats))}
    values = {name: column[:, None] for name, column in columns.items()}
    store.put_measured(text_key(tokens, rounding), [int(i) for i in choice], values, first=0, seconds=1.0)


def changed(model: Model, levels: PackedTensors, space: Space, choice: Choice) -> PreTrainedModel:
    """A copy of the module in float64 with the choice's weights, written piece by piece without the code under test."""
    other = deepcopy(model.module).double()
    if is_mixture(model):
        other.set_experts_implementation("eager")  # the other one knows no float64
    parameters = dict(other.named_parameters())
    with torch.no_grad():
        for unit, form in zip(space.units, choice, strict=True):
            for tensor in unit.tensors:
                rows = torch.from_numpy(levels.weights(tensor, space.formats[form])).double()
                start = 0
                for piece in model.pieces[tensor.name]:
                    matrix = parameters[piece.parameter] if piece.expert < 0 else parameters[piece.parameter][piece.expert]
                    matrix[torch.from_numpy(piece.order())] = rows[start : start + piece.n_rows]
                    start += piece.n_rows
    return other
