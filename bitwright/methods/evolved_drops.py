"""EvoPress' search over drops (Sieberling et al., ICML 2025, arXiv 2410.14649, `evo_drop_search.py`): one parent, and mutations that switch parts.

Attention and feed-forward part of a block are units of their own, and as many of each kind go. The first parent is the best of random drops. Each of
its offspring differs in min(U{1, 2, 3}, U{1, 2, 3}) switches: a part that is gone comes back, and one of the same kind goes in its place, so that the
number that is gone stays. Offspring survive two stages on more and more text, in the last of which the parent competes.

What differs here: parts go from the model in the formats of the best plan of formats alone, not from the original; the same first tokens are read in
every generation; a first block that is left without attention, which llama.cpp does not load, is drawn again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitwright.methods.published_drops import DROP_WORDS, Drops
from bitwright.methods.structure_method import SeenModel, Widths
from bitwright.spaces import Structure

_TRIES = 20  # draws for each of so many that differ

#: gone parts `(2, n_blocks)` bool: attention, then feed-forward parts
Gone = NDArray[np.bool_]


@dataclass(frozen=True)
class DropEvolution:
    """Hyperparameters: the `shares` of parts that go, the random drops that the first parent is drawn from, offspring per generation, and the stages
    of selection, each with its survivors and tokens. A generation for every 1.5 pairs of a block that is gone and one that is not.
    """

    shares: tuple[float, ...] = (0.125, 0.25, 0.375)
    n_initial: int = 64
    n_offspring: int = 32
    stages: tuple[tuple[int, int], ...] = ((2, 2_048), (1, 32_768))

    def n_generations(self, n_blocks: int, n_gone: int) -> int:
        """Return the number of generations."""
        return int(n_gone * (n_blocks - n_gone) / 1.5)


PUBLISHED = DropEvolution()


def evolved_drops(seen: SeenModel, whole: Structure, _: Widths) -> Iterator[Structure]:
    """Yield the best drops for each share, as the structure that llama.cpp loads of them."""
    numbers = (int(share * whole.n_layers) for share in PUBLISHED.shares)
    for n_gone in dict.fromkeys(n for n in numbers if 0 < n < whole.n_layers):
        rng = np.random.default_rng(seen.seed)
        drops = best_drops(whole.n_layers, n_gone, lambda tried, n: seen.divergence(tried.structure(whole), n), rng, PUBLISHED)
        yield drops.structure(whole)


def best_drops(n_blocks: int, n_gone: int, fitness: Callable[[Drops, int], float], rng: np.random.Generator, by: DropEvolution) -> Drops:
    """Return the best drops of `n_gone` attentions and feed-forward parts each; `fitness` is the loss of drops on so many tokens."""
    initial = _different(partial(_random, n_blocks, n_gone, rng), by.n_initial)
    parent = min(initial, key=lambda gone: fitness(_drops(gone), by.stages[0][1]))
    for _ in range(by.n_generations(n_blocks, n_gone)):
        survivors = _different(partial(_switched, parent, rng), by.n_offspring, but=parent)
        for stage, (n_survivors, n_tokens) in enumerate(by.stages, start=1):
            competing = [*survivors, parent] if stage == len(by.stages) else survivors
            survivors = sorted(competing, key=lambda gone: fitness(_drops(gone), n_tokens))[:n_survivors]  # used at once
        parent = survivors[0]
    return _drops(parent)


def _random(n_blocks: int, n_gone: int, rng: np.random.Generator) -> Gone:
    gone = np.zeros((2, n_blocks), dtype=np.bool_)
    for of_kind in gone:
        of_kind[rng.permutation(n_blocks)[:n_gone]] = True
    return gone


def _switched(parent: Gone, rng: np.random.Generator) -> Gone:
    gone = parent.copy()
    for _ in range(min(rng.integers(1, 4), rng.integers(1, 4))):
        of_kind = gone[rng.integers(2)]
        back, away = rng.choice(np.flatnonzero(of_kind)), rng.choice(np.flatnonzero(~of_kind))
        of_kind[[back, away]] = False, True
    return gone


def _different(draw: Callable[[], Gone], n: int, but: Gone | None = None) -> list[Gone]:
    """Return up to `n` different drops that can be loaded, none of them `but`."""
    found = dict[bytes, Gone]()
    for _ in range(_TRIES * n):
        if len(found) == n:
            break
        gone = draw()
        if _is_loaded(gone) and (but is None or (gone != but).any()):
            found.setdefault(gone.tobytes(), gone)
    return [*found.values()]


def _is_loaded(gone: Gone) -> bool:
    """Return whether a block is left, the first of which has attention."""
    left = np.flatnonzero(~gone.all(axis=0))
    return bool(len(left)) and not gone[0, left[0]]


def _drops(gone: Gone) -> Drops:
    return Drops(tuple(DROP_WORDS[int(attention) + 2 * int(feed_forward)] for attention, feed_forward in gone.T))
