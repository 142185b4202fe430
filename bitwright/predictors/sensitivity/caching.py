"""Cache of a proxy's results in the subject's store, keyed by everything that they depend on."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.subject import Subject


def cached(subject: Subject, name: str, make: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the result of `make`, computed only if the store has none of that `name` for the same units, formats, tokens and seed."""
    key = cache_key(subject, name)
    if not subject.store.has_array(key):
        subject.store.put_array(key, make())
    return subject.store.array(key).astype(np.float64)


def cache_key(subject: Subject, name: str) -> str:
    """Return the store key of a result called `name`: the name with a digest of the units, formats, tokens and seed."""
    space, digest = subject.space, hashlib.sha256()
    digest.update(repr([[unit.name for unit in space.units], [form.name for form in space.formats], subject.seed]).encode())
    digest.update(space.offered.tobytes() + repr(subject.tokens.ids.shape).encode() + subject.tokens.ids.tobytes())
    return f"{name}/{digest.hexdigest()[:12]}"
