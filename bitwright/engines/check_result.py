"""Result of checking a built model, for any engine."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Source
from bitwright.objectives import standard_error

Floats = NDArray[np.float64]

#: nats per token that llama.cpp may be from torch with the same weights. It rounds what goes into a product, of quantized weights to 8 bits, and sums
#: in another order: healthy models of every family differ by 0.0001 to 0.02. One that computes something else, a window or a rotary embedding, is off
#: by tenths.
HEALTHY_NATS = 0.03


@dataclass(frozen=True)
class Mean:
    """Mean over contexts in nats per token, and its standard error."""

    nats_per_token: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.nats_per_token:.4f} ± {self.standard_error:.4f}"


class Check(ABC):
    """Result of a check: values promised and found. `prompt` is the text that the engine was given to continue."""

    prompt: str

    @property
    @abstractmethod
    def engine(self) -> str:
        """Name of the engine that loaded the model."""

    @property
    @abstractmethod
    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """Rows of the table: the quantity, as promised, as found."""

    @property
    @abstractmethod
    def broken(self) -> tuple[str, ...]:
        """Sentence for each promise that does not hold."""

    @property
    @abstractmethod
    def written(self) -> str:
        """Text that the engine wrote after the prompt."""


def faults(size: tuple[int, int], wrong_types: tuple[str, ...], *, what: str) -> list[str]:
    """Return sentences about a size and formats that are not as promised; `size` is bytes promised and found, `what` a file or a checkpoint."""
    promised, found = size
    told = []
    if found != promised:
        told.append(f"The {what} has {found:,} bytes and the plan promises {promised:,}.")
    if wrong_types:
        told.append(f"{len(wrong_types)} tensors have another format than the plan says, first {wrong_types[0]}.")
    return told


def gap_fault(engine: str, gap: float, allowed: float) -> list[str]:
    """Return a sentence if the engine is farther from torch, with the same weights, than is allowed."""
    if gap <= allowed:
        return []
    return [f"{engine} is {gap:.4f} nats/token from torch with the same weights; {allowed:.4f} are allowed."]


def divergences(p: Floats, q: Floats) -> Floats:
    """KL(p ‖ q) in nats `(n_contexts,)` of log-probabilities `(n_contexts, n_vocabulary)`."""
    nats: Floats = (np.exp(p) * (p - q)).sum(axis=1)
    return nats


def mean_divergence(p: Floats, q: Floats) -> Mean:
    """Return the mean of `divergences` and its standard error."""
    nats = divergences(p, q)
    return Mean(float(nats.mean()), standard_error(nats))


def steady_context(nats: Floats, lengths: Sequence[int]) -> int:
    """Return the context with the typical gap of its length: of the quarters of `nats` `(n_contexts,)` by `lengths` the largest
    median, the lower of two middle ones.

    A mean would not do: in a mixture, another order of addition sends a token to another expert here and there, which may move one context by tenths,
    and what an engine leaves out, such as a window, moves all contexts beyond some length and none before.
    """
    by_length = np.argsort(lengths, kind="stable")
    quarters = [quarter[np.argsort(nats[quarter])] for quarter in np.array_split(by_length, min(4, len(nats)))]
    return max((int(quarter[(len(quarter) - 1) // 2]) for quarter in quarters), key=lambda i: float(nats[i]))


def types_unlike(formats: Mapping[str, str], built: Source) -> tuple[str, ...]:
    """Return the tensors whose format is not that of `formats` (tensor → format)."""
    found = {tensor.name: tensor.stored for tensor in built.tensors}
    return tuple(name for name, form in formats.items() if found.get(name) != form)
