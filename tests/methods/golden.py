"""Small spaces, and what a method is given in the place of a model: tables, scores and true values of a test, with a record of what was asked for."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from bitwright.engines import NATIVE
from bitwright.methods import Method
from bitwright.methods.by_name import method_named
from bitwright.predictors import predictor_named
from bitwright.predictors.plans.perceptron import PerceptronPredictor
from bitwright.search import Problem, Question, Trials
from bitwright.spaces import Choice, Choices, Space, Tensor, discover

MENU = ("INT2_ROW", "INT3_ROW", "INT4_ROW")


def dense(rows: dict[int, tuple[int, ...]], *, menu: tuple[str, ...] = MENU) -> Space:
    """Layers with matrices of so many rows of 64 weights."""
    kinds = ("attn_q", "attn_k", "ffn_up", "ffn_down")
    tensors = [Tensor(f"blk.{layer}.{kind}.weight", (n, 64), "F32") for layer, sizes in rows.items() for kind, n in zip(kinds, sizes, strict=False)]
    return NATIVE.space(discover(tensors), menu=menu, fixed_bytes=100, n_weights=sum(tensor.n_weights for tensor in tensors))


def every(space: Space) -> Choices:
    """All choices."""
    return np.array(list(product(*(np.flatnonzero(row) for row in space.offered))), dtype=np.int64)


def bits_of(space: Space, choice: Choice) -> list[int]:
    """The width of each unit's codes."""
    return [int(space.formats[f].name[3]) for f in choice]


def between(space: Space, share: float) -> int:
    """A budget so far on the way from the smallest file to the largest."""
    smallest, largest = (int(space.total_bits(choice)) for choice in (space.smallest(), space.largest()))
    return smallest + int(share * (largest - smallest))


@dataclass(frozen=True, eq=False)
class Given:
    """Inputs of a method: by default as many numbers as it asks for, drawn from a seed."""

    space: Space
    table: Callable[[str], np.ndarray] = lambda _: np.zeros(0)
    scores: Callable[[str, Space], np.ndarray] = lambda *_: np.zeros(0)
    true: Callable[[Choice], float] = lambda _: 0.0
    n_sequences: int = 64
    seed: int = 3
    asked: list[str] = field(default_factory=list)

    def problem(self) -> Problem:
        """Problem with these answers in the place of a model."""
        uniforms = np.stack([self.space.smallest(), self.space.largest()])
        nothing = np.full(self.space.offered.shape, np.nan)  # whoever reads it is found out
        return Problem(
            self.space,
            uniforms,
            self.n_sequences,
            self.seed,
            tables=(nothing,),
            sequence_length=256,
            refit=self._refit,
            price=self._price,
            score=self._score,
            measure=self.true,
        )

    def _refit(self, name: str, space: Space) -> Any:
        self.asked.append(name)
        named = predictor_named(name, space, np.full(space.offered.shape, np.nan), seed=self.seed)
        return (replace(named, n_epochs=100) if isinstance(named, PerceptronPredictor) else named).fit  # which takes seconds for 2000

    def _price(self, name: str) -> np.ndarray:
        self.asked.append(name)
        return self.table(name)

    def _score(self, name: str, space: Space) -> np.ndarray:
        self.asked.append(name)
        return self.scores(name, space)

    def answer(self, method: str, budget_bits: int) -> Choice:
        """The one choice that a method decides on."""
        question = method_named(method).for_budget(self.problem(), budget_bits).ask()
        assert len(question.choices) == 1
        choice: Choice = question.choices[0]
        return choice

    def questions(self, method: Method, budget_bits: int, *, n: int) -> list[Question]:
        """The first `n` questions of a search, answered by the true values."""
        strategy, found = method.for_budget(self.problem(), budget_bits), []
        while len(found) < n and not (question := strategy.ask()).is_last:
            values = np.array([[self.true(choice)] for choice in question.choices])
            strategy.tell(Trials(question.choices, values, 0.01 * np.abs(values), np.full(len(values), question.n_sequences)))
            found.append(question)
        return found
