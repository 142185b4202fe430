"""Search for efficient LLMs (Shen et al., NeurIPS 2024, arXiv 2409.17372): evolution of heads, channels and depth within a window of parameters.

From random candidates in the window, each epoch takes the best that were ever measured as parents, mutates some and crosses others, and fills the
population up with random ones (`evolution.py` and `run-search-llama.sh` of its repository). Fitness is the cross-entropy of the original weights
without what goes.

What differs here: which heads and channels of a block go is by the energy that they give, in whose order they are; blocks that go lie anywhere, where
the source keeps the first ones; heads keep their size; a candidate outside of the window is moved into it gene by gene, where the source draws again;
what is crossed are blocks; what is left is refitted in closed form instead of the paper's reformation by ADMM; and formats are chosen with it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.methods.structure_method import SeenModel, Widths
from bitwright.spaces import Structure

_TRIES = 10  # draws for each candidate that is asked for
_WIDTH, _DEPTH = 0.2, 0.4  # chances that a width, and that the depth mutates
_DEEPEST = 0.25  # share of the blocks that go at most

#: groups of heads and channels of each block that are kept `(n_blocks, 2)`, zeros for one that is gone
Genes = NDArray[np.int64]


@dataclass(frozen=True)
class WidthEvolution:
    """Hyperparameters: the `windows` of the share of the blocks' weights that is kept, of which the second is the released one; epochs, the
    population, parents, and of each epoch's candidates those that are mutated and crossed.
    """

    windows: tuple[tuple[float, float], ...] = ((0.82, 0.9), (0.74, 0.82), (0.66, 0.74))
    n_epochs: int = 30
    n_population: int = 500
    n_parents: int = 300
    n_mutated: int = 350
    n_crossed: int = 100


PUBLISHED = WidthEvolution()


@dataclass(frozen=True, eq=False)
class GeneSpace:
    """Numbers of groups and channels that may be kept of each block, all of them first, and the weights of its parts `(n_blocks, 2)`."""

    options: tuple[tuple[Sequence[int], Sequence[int]], ...]
    part_weights: NDArray[np.int64]

    @property
    def whole(self) -> Genes:
        """Genes of the whole model."""
        return np.array([[groups[0], channels[0]] for groups, channels in self.options], dtype=np.int64)

    def share(self, genes: Genes) -> float:
        """Return the share of the blocks' weights that is kept."""
        return float((self.part_weights * genes / self.whole).sum() / self.part_weights.sum())

    def drawn(self, block: int, rng: np.random.Generator) -> list[int]:
        """Return random widths of a block, of groups and of channels."""
        return [int(rng.choice(numbers)) for numbers in self.options[block]]

    def random(self, rng: np.random.Generator) -> Genes:
        """Return random widths and a random depth; the first block stays."""
        genes = np.array([self.drawn(block, rng) for block in range(len(self.options))], dtype=np.int64)
        n_gone = rng.integers(int(_DEEPEST * len(genes)) + 1)
        genes[1 + rng.permutation(len(genes) - 1)[:n_gone]] = 0
        return genes

    def mutated(self, genes: Genes, rng: np.random.Generator) -> Genes:
        """Return genes with some widths drawn again, and perhaps a block taken away or put back."""
        drawn = np.array([self.drawn(block, rng) for block in range(len(genes))], dtype=np.int64)
        made = np.where((rng.random(genes.shape) < _WIDTH) & (genes > 0), drawn, genes)
        if len(made) > 1 and rng.random() < _DEPTH:
            block = int(rng.integers(1, len(made)))
            made[block] = 0 if made[block].any() else self.drawn(block, rng)
        return made

    def moved_into(self, genes: Genes, window: tuple[float, float], rng: np.random.Generator) -> Genes | None:
        """Return genes with random widths moved a step at a time until the share is in the window; None where a step is too long for it."""
        made = genes.copy()
        for step, bound in ((1, window[1]), (-1, window[0])):
            while step * (self.share(made) - bound) > 0:
                movable = [(b, k) for b, k in np.argwhere(made > 0) if 0 <= self._place(made, b, k) + step < len(self.options[b][k])]
                if not movable:
                    break
                block, kind = movable[rng.integers(len(movable))]
                made[block, kind] = self.options[block][kind][self._place(made, block, kind) + step]
        return made if window[0] <= self.share(made) <= window[1] else None

    def _place(self, genes: Genes, block: int, kind: int) -> int:
        return list(self.options[block][kind]).index(int(genes[block, kind]))


def evolved_widths(seen: SeenModel, whole: Structure, widths: Widths) -> Iterator[Structure]:
    """Yield the best structure of each window."""
    options = tuple((range(groups, 0, -1), widths(channels)) for groups, channels in zip(whole.head_groups, whole.channels, strict=True))
    space = GeneSpace(options, seen.part_weights)
    for window in PUBLISHED.windows:
        best = best_widths(space, window, lambda genes: seen.kept(_structure(genes)).nats_per_token, np.random.default_rng(seen.seed), PUBLISHED)
        if best is not None:
            yield _structure(best)


def best_widths(
    space: GeneSpace, window: tuple[float, float], fitness: Callable[[Genes], float], rng: np.random.Generator, by: WidthEvolution
) -> Genes | None:
    """Return the genes of least `fitness` that were found in a window, None where none were."""
    measured = dict[bytes, tuple[float, Genes]]()

    def add(draw: Callable[[], Genes], n: int) -> None:
        wanted = len(measured) + n
        for _ in range(_TRIES * n):
            if len(measured) == wanted:
                return
            genes = space.moved_into(draw(), window, rng)
            if genes is not None and genes.tobytes() not in measured:
                measured[genes.tobytes()] = fitness(genes), genes

    add(lambda: space.random(rng), by.n_population)
    for _ in range(by.n_epochs if measured else 0):
        n_known = len(measured)
        parents = [genes for _, genes in sorted(measured.values(), key=lambda pair: pair[0])[: by.n_parents]]
        add(lambda: space.mutated(parents[rng.integers(len(parents))], rng), by.n_mutated)  # noqa: B023  # drawn at once
        add(lambda: _crossed(parents[rng.integers(len(parents))], parents[rng.integers(len(parents))], rng), by.n_crossed)  # noqa: B023
        add(lambda: space.random(rng), by.n_population - by.n_mutated - by.n_crossed)
        if len(measured) == n_known:
            break  # a small model has no others
    return min(measured.values(), key=lambda pair: pair[0])[1] if measured else None


def _crossed(one: Genes, other: Genes, rng: np.random.Generator) -> Genes:
    """Return the genes of each block from either parent."""
    return np.where(rng.random(len(one))[:, None] < 0.5, one, other)


def _structure(genes: Genes) -> Structure:
    groups, channels = genes.T.tolist()
    return Structure(tuple(groups), tuple(channels))
