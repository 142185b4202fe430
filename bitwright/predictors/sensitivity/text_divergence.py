"""Divergence of a changed model on a subject's text, for proxies that measure: every measurement is cached.

Two proxies that measure the same choice share the work. The original's predictions are computed at the first measurement that is not cached.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property

import numpy as np

from bitwright.compress import Model, Weights, applied, planned_weights, quantized_cache
from bitwright.objectives import KullbackLeibler, Reference
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.spaces import CacheTypes, Choice, Format, chosen_cache

_NATS = KullbackLeibler()


class TextDivergence:
    """KL(original ‖ changed) in nats per token over the tokens of a subject. Opened by `open_divergence`."""

    def __init__(self, subject: Subject, stack: ExitStack) -> None:
        self._subject, self._stack = subject, stack

    def of_choice(self, choice: Choice) -> float:
        """Return the divergence of a choice `(n_units,)`."""
        subject, name = self._subject, hashlib.sha256(np.asarray(choice, dtype=np.int64).tobytes()).hexdigest()[:16]
        formats = {t.name: subject.space.formats[f] for unit, f in zip(subject.space.units, choice, strict=True) for t in unit.tensors}
        return self._cached(f"divergence/{name}", lambda: self._nats(self._planned(formats), chosen_cache(subject.space, choice)))

    def of_one(self, unit: int, form: int) -> float:
        """Return the divergence with one unit in one format and all others as in the original."""
        return self._cached(f"single/{unit}/{form}", lambda: one_unit(self._subject, self._reference, unit=unit, form=form))

    def of_cache(self, types: CacheTypes) -> float:
        """Return the divergence with keys and values cached in these types and all weights as in the original."""
        return self._cached(f"cache/{types}", lambda: self._nats({}, types))

    def with_weights(self, name: str, weights: Weights) -> float:
        """Return the divergence with `weights` in place of the original's of the same names, cached as `name`."""
        return self._cached(name, lambda: self._nats(weights, CacheTypes()))

    def _planned(self, formats: Mapping[str, Format]) -> Weights:
        return planned_weights(self._subject.model, self._subject.levels, formats=formats)

    def _nats(self, weights: Weights, types: CacheTypes) -> float:
        with quantized_cache(self._subject.model, types):
            return divergence(self._subject.model, weights, self._reference)

    @cached_property
    def _reference(self) -> Reference:
        subject = self._subject
        reference = Reference(subject.model, subject.tokens, scratch=subject.levels.folder, progress=subject.progress)
        self._stack.callback(reference.discard)
        return reference

    def _cached(self, name: str, measure: Callable[[], float]) -> float:
        return float(cached(self._subject, name, lambda: np.array(measure())))


@contextmanager
def open_divergence(subject: Subject) -> Iterator[TextDivergence]:
    """Open a `TextDivergence` on the subject's text; its temporary file is removed when the `with` block ends."""
    with ExitStack() as stack:
        yield TextDivergence(subject, stack)


def one_unit(subject: Subject, reference: Reference, *, unit: int, form: int) -> float:
    """Return the divergence in nats per token with one unit of a subject in one format and all others as in the original."""
    formats = {tensor.name: subject.space.formats[form] for tensor in subject.space.units[unit].tensors}
    return divergence(subject.model, planned_weights(subject.model, subject.levels, formats=formats), reference)


def divergence(model: Model, weights: Weights, reference: Reference) -> float:
    """Return the divergence in nats per token with `weights` in place of the original's of the same names."""
    with applied(model, weights):
        return float(reference.measure(model, (_NATS,))[:, 0].mean())
