"""The divergence of a changed model on a subject's text, for proxies that measure: each measurement is kept and not repeated.

Two proxies that measure the same choice share the work. The original's predictions are read when something is first measured, not before: where all
is kept already, nothing runs.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property

import numpy as np

from bitwright.compress import Weights
from bitwright.objectives import Divergence, Reference
from bitwright.predictors.sensitivity.caching import kept
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import CacheTypes, Choice


class TextDivergence:
    """KL(original ‖ changed) in nats per token over the tokens of a subject. Made by `on_text`."""

    def __init__(self, subject: Subject, stack: ExitStack) -> None:
        self._subject, self._stack = subject, stack

    def of_choice(self, choice: Choice) -> float:
        """With every unit as `choice` `(n_units,)` says."""
        name = hashlib.sha256(np.asarray(choice, dtype=np.int64).tobytes()).hexdigest()[:16]
        return self._kept(f"divergence/{name}", lambda: self._objective(choice).nats_per_token)

    def of_one(self, unit: int, form: int) -> float:
        """With one unit in one format and all others as in the original."""
        return self._kept(f"single/{unit}/{form}", lambda: self._objective.of_one(unit, form))

    def of_cache(self, types: CacheTypes) -> float:
        """With keys and values in these types and all weights as in the original."""
        return self._kept(f"cache/{types}", lambda: self._objective.of_cache(types))

    def of_weights(self, name: str, weights: Weights) -> float:
        """With any weights in place of some of the original's, kept under `name`."""
        return self._kept(name, lambda: self._objective.of_weights(weights))

    @cached_property
    def _objective(self) -> Divergence:
        subject = self._subject
        reference = Reference(subject.model, subject.tokens, scratch=subject.levels.folder, progress=subject.progress)
        self._stack.callback(reference.discard)
        return Divergence(subject.model, subject.levels, space=subject.space, reference=reference)

    def _kept(self, name: str, measure: Callable[[], float]) -> float:
        return float(kept(self._subject, name, lambda: np.array(measure())))


@contextmanager
def on_text(subject: Subject) -> Iterator[TextDivergence]:
    """What measures on the subject's text, for as long as the block lasts."""
    with ExitStack() as stack:
        yield TextDivergence(subject, stack)
