"""What a built model is held to, whatever the engine."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Source
from bitwright.objectives import standard_error
from bitwright.spaces import Plan

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """A mean over contexts in nats per token, and its standard error."""

    nats_per_token: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.nats_per_token:.4f} ± {self.standard_error:.4f}"


class Check(ABC):
    """What was promised and what was found. `prompt` is the text that the engine was given to go on with."""

    prompt: str

    @property
    @abstractmethod
    def engine(self) -> str:
        """What loaded the model."""

    @property
    @abstractmethod
    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """What is compared, what was promised and what was found, in words."""

    @property
    @abstractmethod
    def broken(self) -> tuple[str, ...]:
        """A sentence for each promise that does not hold."""

    @property
    @abstractmethod
    def written(self) -> str:
        """What the engine wrote after the prompt."""


def faults(size: tuple[int, int], wrong_types: tuple[str, ...], *, what: str) -> list[str]:
    """A sentence each where the bytes, promised and found, differ, and where formats do; `what` is a file or a checkpoint."""
    promised, found = size
    told = []
    if found != promised:
        told.append(f"The {what} has {found:,} bytes and the plan promises {promised:,}.")
    if wrong_types:
        told.append(f"{len(wrong_types)} tensors have another format than the plan says, first {wrong_types[0]}.")
    return told


def gap_fault(engine: str, gap: Mean, allowed: float) -> list[str]:
    """A sentence where the engine is farther from torch, with the same weights, than is allowed."""
    if gap.nats_per_token <= allowed:
        return []
    return [f"{engine} is {gap.nats_per_token:.4f} nats/token from torch with the same weights; {allowed:.4f} are allowed."]


def mean_divergence(p: Floats, q: Floats) -> Mean:
    """KL(p ‖ q) of log-probabilities `(n_contexts, n_vocabulary)`."""
    nats = (np.exp(p) * (p - q)).sum(axis=1)
    return Mean(float(nats.mean()), standard_error(nats))


def types_unlike(plan: Plan, built: Source) -> tuple[str, ...]:
    """The tensors whose format is not the one of the plan."""
    found = {tensor.name: tensor.stored for tensor in built.tensors}
    return tuple(name for name, form in plan.formats.items() if found.get(name) != form)
