"""Work of a proxy that is done once: its numbers go into the subject's store under a name that differs for all that could come out different."""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bitwright.predictors.sensitivity.subject import Subject


def kept(subject: Subject, name: str, make: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
    """What `make` gives, made only where the store has nothing of that `name` for the same units, formats, tokens and seed."""
    key = name_for(subject, name)
    if not subject.store.has_array(key):
        subject.store.put_array(key, make())
    return subject.store.array(key).astype(np.float64)


def name_for(subject: Subject, name: str) -> str:
    """Under what the store keeps what bears that `name`."""
    space, digest = subject.space, hashlib.sha256()
    digest.update(repr([[unit.name for unit in space.units], [form.name for form in space.formats], subject.seed]).encode())
    digest.update(space.offered.tobytes() + repr(subject.tokens.ids.shape).encode() + subject.tokens.ids.tobytes())
    return f"{name}/{digest.hexdigest()[:12]}"
