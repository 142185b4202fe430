"""Residence of a model's weights: all of them in memory, or those of a few blocks at a time.

A pass over a text is a list of jobs, one for each batch, that the residence of the model runs: one after another where all weights are in memory, or
together, block by block, where they are read as they are needed (`streaming/`). A job computes the same in both.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor as Torch

from bitwright.compress.models.source import Floats
from bitwright.progress import Advance

Result = TypeVar("Result")
Views = Mapping[str, Torch]

#: tensor → the function that returns its matrix `(n_rows, n_columns)` in engine order; of two functions that are equal the weights are the same
Weights = Mapping[str, Callable[[], Floats]]

#: address of a view: its storage, its offset in it, and its shape
Address = tuple[int, int, tuple[int, ...]]


@dataclass(frozen=True)
class Job(Generic[Result]):
    """Part of a pass: `run`, a function that runs the module and returns its result, and the number of tokens that it reads."""

    run: Callable[[], Result]
    n_tokens: int


class Changes(ABC):
    """Weights other than the original ones, for parameters that are in memory."""

    @abstractmethod
    def write(self, weights: Weights, parameters: Collection[str] | None) -> None:
        """Give the tensors in these `parameters`, all where it is None, their `weights`, or the original ones where there are none."""

    @abstractmethod
    def replaced(self, weights: Weights, parameters: Collection[str]) -> set[str]:
        """Return those of `parameters` of which `weights` give every weight, without reading the original ones."""

    @abstractmethod
    def n_differing(self, first: Weights, second: Weights, parameters: Collection[str]) -> int:
        """Return how many weights of `parameters` are written anew where the weights `first` are followed by `second`."""

    @abstractmethod
    def forget(self, parameters: Collection[str]) -> None:
        """Note that these parameters were freed: when they are in memory again, they have the original weights."""

    @abstractmethod
    def active(self) -> AbstractContextManager[object]:
        """Return the context in which a block with the weights written last is run."""


class Residence(ABC):
    """Place of a model's weights."""

    #: bytes that a pass may keep in memory beside the model's weights, for what grows with the text
    room_bytes: int
    #: bytes of other weights that may be kept in float32 for choices to come
    expanded_bytes: int

    @property
    @abstractmethod
    def is_streamed(self) -> bool:
        """Return whether weights are read as they are needed."""

    @abstractmethod
    def each(self, jobs: Sequence[Job[Result]], advance: Advance) -> Iterator[Result]:
        """Run the jobs and yield their results in order; `advance` is called with the numbers of tokens read.

        What a job enters (gradients, inference mode, taps) it must enter itself.
        """

    @abstractmethod
    def differentiate(self, forward: Callable[[], Torch], slope: Callable[[Torch], Torch]) -> None:
        """Run `forward`, and propagate back from its output `(…)` the gradient that `slope` returns for it, of the same shape.

        Hooks on outputs within a block are called in another run of the block, so that taps must be active around this call.
        """

    @abstractmethod
    def change(self, changes: Changes, weights: Weights) -> None:
        """Give the module these weights: now, or to each block when it is run next."""

    @abstractmethod
    def originals(self, parameters: Views) -> Views | None:
        """Return the original weights of `parameters` by name, read again on access; None where they are nowhere but in the module itself."""

    @abstractmethod
    def weights(self, parameters: Views) -> Iterator[tuple[str, Torch]]:
        """Yield the weights of a module by name, given its parameters and buffers; one at a time is in memory."""

    @abstractmethod
    def parts(self, parameters: Views) -> Iterator[tuple[str, Torch]]:
        """Yield the same in parts, of any shape and in any type of floats that has the weights exactly."""


@dataclass(frozen=True)
class InMemory(Residence):
    """All weights in memory."""

    room_bytes: int = 1 << 30
    expanded_bytes: int = 1 << 31
    is_streamed = False

    def each(self, jobs: Sequence[Job[Result]], advance: Advance) -> Iterator[Result]:
        """Run the jobs one after another."""
        for job in jobs:
            yield job.run()
            advance(job.n_tokens)

    def differentiate(self, forward: Callable[[], Torch], slope: Callable[[Torch], Torch]) -> None:
        """Run both passes."""
        with torch.enable_grad():
            output = forward()
            output.backward(slope(output.detach()))  # type: ignore[no-untyped-call]

    def change(self, changes: Changes, weights: Weights) -> None:
        """Write the weights now."""
        changes.write(weights, None)

    def originals(self, parameters: Views) -> None:
        """Return none: whoever changes weights keeps the original ones."""

    def weights(self, parameters: Views) -> Iterator[tuple[str, Torch]]:
        """Yield the parameters themselves."""
        yield from parameters.items()

    def parts(self, parameters: Views) -> Iterator[tuple[str, Torch]]:
        """Yield the parameters themselves."""
        yield from parameters.items()


IN_MEMORY = InMemory()


def address(view: Torch) -> Address:
    """Return the address of a view, by which it is recognised wherever its storage lies."""
    return view.untyped_storage()._cdata, int(view.storage_offset()), tuple(view.shape)


def address_within(parameter: Torch, cut: Callable[[Torch], Torch]) -> Address:
    """Return the address of the view that `cut` returns of a parameter, which need not be in memory."""
    view = cut(torch.empty_strided(parameter.shape, parameter.stride(), device="meta"))
    return parameter.untyped_storage()._cdata, int(parameter.storage_offset() + view.storage_offset()), tuple(view.shape)
