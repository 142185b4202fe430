"""Nearly identical experts of a layer: when one of two is dropped, the other should take its tokens instead of the router's next choice.

They come from sparse upcycling (Komatsuzaki et al., ICLR 2023), where all experts are initialised as copies of one. Experts trained from scratch are
hardly ever this similar, and then there is no replacement.
"""

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitwright.compress.models.source import Source
from bitwright.spaces import Tensor, expert_of

#: layer and index
Expert = tuple[int, int]

ALIKE = 0.9  # least cosine similarity of all weights of two experts


def twins(source: Source) -> dict[Expert, int]:
    """Return for each expert the index of the most similar one of its layer, if the cosine similarity of their weights is `ALIKE` or more; the source
    must hold experts as tensors of their own.
    """
    found: dict[Expert, int] = {}
    for layer, kinds in _stacks(source.tensors).items():
        products = np.sum([_products(source, tensors) for tensors in kinds.values()], axis=0)
        norms = np.sqrt(np.diag(products))
        cosines = products / np.maximum(np.outer(norms, norms), np.finfo(np.float64).tiny) - 2 * np.eye(len(products))
        found |= {(layer, expert): int(row.argmax()) for expert, row in enumerate(cosines) if row.max() >= ALIKE}
    return found


def _stacks(tensors: tuple[Tensor, ...]) -> dict[int, dict[str, list[Tensor]]]:
    """Group the experts' tensors by layer and role, in the order of their index."""
    stacks: dict[int, dict[str, list[Tensor]]] = {}
    for tensor in sorted(tensors, key=lambda tensor: expert_of(tensor.name)):
        layer, expert = expert_of(tensor.name)
        if expert >= 0:
            stacks.setdefault(layer, {}).setdefault(re.sub(r"\d+", "", tensor.name), []).append(tensor)
    return stacks


def _products(source: Source, tensors: list[Tensor]) -> NDArray[np.float64]:
    """Return the Gram matrix `(n_experts, n_experts)` of the tensors, computed in chunks."""
    weights = np.stack([source.read(tensor).reshape(-1) for tensor in tensors])  # (n_experts, n_weights)
    total = np.zeros((len(tensors), len(tensors)))
    for part in _parts(weights):
        total += part @ part.T
    return total


def _parts(weights: NDArray[np.float32], width: int = 1 << 20) -> Iterator[NDArray[np.float64]]:
    for start in range(0, weights.shape[1], width):
        yield weights[:, start : start + width].astype(np.float64)
