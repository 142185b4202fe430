"""Divergence of a changed model on a subject's text, for proxies that measure: every measurement is cached.

Two proxies that measure the same choice share the work. The original's predictions are computed at the first measurement that is not cached.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property

import numpy as np

from bitwright.compress import Weights
from bitwright.objectives import Divergence, Reference
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import CacheTypes, Choice


class TextDivergence:
    """KL(original ‖ changed) in nats per token over the tokens of a subject. Opened by `open_divergence`."""

    def __init__(self, subject: Subject, stack: ExitStack) -> None:
        self._subject, self._stack = subject, stack

    def of_choice(self, choice: Choice) -> float:
        """Return the divergence of a choice `(n_units,)`."""
        name = hashlib.sha256(np.asarray(choice, dtype=np.int64).tobytes()).hexdigest()[:16]
        return self._cached(f"divergence/{name}", lambda: self._objective(choice).nats_per_token)

    def of_one(self, unit: int, form: int) -> float:
        """Return the divergence with one unit in one format and all others as in the original."""
        return self._cached(f"single/{unit}/{form}", lambda: self._objective.of_one(unit, form))

    def of_cache(self, types: CacheTypes) -> float:
        """Return the divergence with keys and values cached in these types and all weights as in the original."""
        return self._cached(f"cache/{types}", lambda: self._objective.of_cache(types))

    def weight_space(self, name: str, weights: Weights) -> float:
        """Return the divergence with `weights` in place of the original's of the same names, cached as `name`."""
        return self._cached(name, lambda: self._objective.weight_space(weights))

    @cached_property
    def _objective(self) -> Divergence:
        subject = self._subject
        reference = Reference(subject.model, subject.tokens, scratch=subject.levels.folder, progress=subject.progress)
        self._stack.callback(reference.discard)
        return Divergence(subject.model, subject.levels, space=subject.space, reference=reference)

    def _cached(self, name: str, measure: Callable[[], float]) -> float:
        return float(cached(self._subject, name, lambda: np.array(measure())))


@contextmanager
def open_divergence(subject: Subject) -> Iterator[TextDivergence]:
    """Open a `TextDivergence` on the subject's text; its temporary file is removed when the `with` block ends."""
    with ExitStack() as stack:
        yield TextDivergence(subject, stack)
