"""A subject of proxies whose store is closed again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitwright.compress import Model, PackedTensors
from bitwright.objectives import Store, Tokens
from bitwright.predictors import Subject
from bitwright.progress import Silent
from bitwright.spaces import Space


@contextmanager
def opened(model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, store: Path, seed: int = 0) -> Iterator[Subject]:
    """Subject whose store, the file `store`, is open inside the `with` block."""
    opened_store = Store(store)
    try:
        yield Subject(model, levels, space, tokens, seed, opened_store, Silent())
    finally:
        opened_store.close()
