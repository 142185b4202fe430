"""EvoPress' search over drops and the search for efficient LLMs, against reimplementations of a few lines."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest

from bitwright.methods import KeptModel, SeenModel, structure_method
from bitwright.methods.evolved_drops import DropEvolution, best_drops
from bitwright.methods.evolved_widths import GeneSpace, WidthEvolution, best_widths
from bitwright.methods.published_drops import Drops
from bitwright.spaces import Structure

_N, _GONE = 8, 2
_WORDS = {(False, False): "none", (True, False): "attn", (False, True): "mlp", (True, True): "attn+mlp"}


def price(words: tuple[str, ...], n_tokens: int) -> float:
    """Return a loss in which parts miss each other, and which little text gets wrong."""
    gone = [(i, part) for i, word in enumerate(words) for part in word.split("+") if word != "none"]
    alone = sum(0.1 + ((7 * i + 3 * len(part)) % 5) / 10 for i, part in gone)
    together = sum(0.3 for (i, _), (j, _) in combinations(gone, 2) if abs(i - j) == 1)
    return alone + together + sum(i for i, _ in gone) / n_tokens


def evopress_drops(by: DropEvolution, seed: int) -> tuple[str, ...]:
    """`evo_drop_search.py` of EvoPress with lists: states of attention and feed-forward parts, True for those that are removed."""
    rng = np.random.default_rng(seed)

    def valid(state: list[list[bool]]) -> bool:
        left = [i for i in range(_N) if not (state[0][i] and state[1][i])]
        return not state[0][left[0]]

    def words(state: list[list[bool]]) -> tuple[str, ...]:
        return tuple(_WORDS[pair] for pair in zip(*state, strict=True))

    def mutated(parent: list[list[bool]]) -> list[list[bool]]:
        state = [list(of_kind) for of_kind in parent]
        for _ in range(min(rng.integers(1, 4), rng.integers(1, 4))):
            of_kind = state[rng.integers(2)]
            add = int(rng.choice([i for i in range(_N) if of_kind[i]]))
            remove = int(rng.choice([i for i in range(_N) if not of_kind[i]]))
            of_kind[add], of_kind[remove] = False, True
        return state

    def drawn() -> list[list[bool]]:
        return [[i in chosen for i in range(_N)] for chosen in (rng.permutation(_N)[:_GONE], rng.permutation(_N)[:_GONE])]

    def several(draw, n: int, parent=None) -> list[list[list[bool]]]:  # type: ignore[no-untyped-def]
        found: list[list[list[bool]]] = []
        for _ in range(20 * n):
            if len(found) == n:
                break
            state = draw()
            if valid(state) and state != parent and state not in found:
                found.append(state)
        return found

    parent = min(several(drawn, by.n_initial), key=lambda state: price(words(state), by.stages[0][1]))
    for _ in range(int(_GONE * (_N - _GONE) / 1.5)):
        children = several(lambda parent=parent: mutated(parent), by.n_offspring, parent)
        (few, short), (one, long) = by.stages
        survivors = sorted(children, key=lambda state: price(words(state), short))[:few]
        parent = sorted([*survivors, parent], key=lambda state: price(words(state), long))[:one][0]
    return words(parent)


def test_drops_are_those_of_a_reimplementation_and_near_the_best() -> None:
    by = DropEvolution(n_initial=6, n_offspring=5, stages=((2, 20), (1, 2000)))
    found = best_drops(_N, _GONE, lambda drops, n: price(drops.words, n), np.random.default_rng(3), by)
    assert found.words == evopress_drops(by, 3)
    masks = [tuple(i in chosen for i in range(_N)) for chosen in combinations(range(_N), _GONE)]
    possible = [tuple(_WORDS[pair] for pair in zip(a, f, strict=True)) for a in masks for f in masks]
    losses = sorted(price(words, 2000) for words in possible if next(word for word in words if word != "attn+mlp") != "attn")
    assert price(found.words, 2000) <= losses[len(losses) // 20]


@pytest.mark.slow
def test_as_many_of_each_kind_go_and_what_is_proposed_can_be_loaded() -> None:
    whole, method = Structure((4,) * 8, (256,) * 8), structure_method("evopress-drops")
    assert method is not None
    seen = [*method.proposed(model(whole), whole, lambda n: [n])]
    assert [sum(not n for n in kept.head_groups) for kept in seen] == [1, 2, 3]
    assert [sum(n < 256 for n in kept.channels) for kept in seen] == [1, 2, 3]
    assert not any(kept.trapped for kept in seen)


def model(whole: Structure) -> SeenModel:
    """Return a model of which blocks far behind cost little."""

    @cache
    def loss(kept: Structure) -> float:
        pairs = enumerate(zip(kept.head_groups, kept.channels, whole.head_groups, whole.channels, strict=True))
        return sum((2 - g / full_g - c / full_c) / (1 + i) for i, (g, c, full_g, full_c) in pairs)

    no = np.zeros(0)
    weights = np.array([[40, 60]] * whole.n_layers)
    return SeenModel(no, no, lambda kept: KeptModel(1.0, 2 + loss(kept)), lambda kept, n: loss(kept) + 1 / n, weights, 0, no)


# --- widths and depth in a window of parameters

_SPACE = GeneSpace(((range(3, 0, -1), [256, 192, 128]),) * 5, np.array([[40, 60]] * 5))


def width_loss(genes: np.ndarray) -> float:
    return sum((3 - g) / (1 + i) + (256 - c) / 64 / (5 - i) for i, (g, c) in enumerate(genes.tolist()))


def search_llm(window: tuple[float, float], by: WidthEvolution, seed: int) -> list[tuple[int, int]]:
    """`evolution.py` of search-llm: all candidates that were visited, the best of them parents."""
    rng = np.random.default_rng(seed)
    visited: dict[tuple[tuple[int, int], ...], float] = {}

    def visit(draw, n: int) -> None:  # type: ignore[no-untyped-def]
        legal = 0
        for _ in range(10 * n):
            cand = _SPACE.moved_into(draw(), window, rng) if legal < n else None
            key = () if cand is None else tuple(map(tuple, cand.tolist()))
            if key and key not in visited:
                share = sum(40 * g / 3 + 60 * c / 256 for g, c in key) / 500
                assert window[0] <= share <= window[1]
                visited[key], legal = width_loss(np.array(key)), legal + 1

    visit(lambda: _SPACE.random(rng), by.n_population)
    for _ in range(by.n_epochs):
        top = [np.array(key) for key in sorted(visited, key=lambda key: visited[key])[: by.n_parents]]
        visit(lambda top=top: _SPACE.mutated(top[rng.integers(len(top))], rng), by.n_mutated)

        def child(top: list[np.ndarray] = top) -> np.ndarray:
            one, other = top[rng.integers(len(top))], top[rng.integers(len(top))]
            return np.array([a if pick < 0.5 else b for pick, a, b in zip(rng.random(5), one, other, strict=True)])

        visit(child, by.n_crossed)
        visit(lambda: _SPACE.random(rng), by.n_population - by.n_mutated - by.n_crossed)
    return list(min(visited, key=lambda key: visited[key]))


@pytest.mark.slow
def test_widths_are_those_of_a_reimplementation_in_the_window() -> None:
    by, window = WidthEvolution(n_epochs=4, n_population=20, n_parents=8, n_mutated=12, n_crossed=5), (0.74, 0.82)
    found = best_widths(_SPACE, window, width_loss, np.random.default_rng(5), by)
    assert found is not None
    assert [tuple(gene) for gene in found.tolist()] == search_llm(window, by, 5)
    assert window[0] <= _SPACE.share(found) <= window[1]
    first = best_widths(_SPACE, window, width_loss, np.random.default_rng(5), WidthEvolution(n_epochs=0, n_population=20))
    assert first is not None
    assert width_loss(found) < width_loss(first)


def test_a_window_that_no_widths_are_in_proposes_nothing() -> None:
    by = WidthEvolution(n_epochs=1, n_population=4, n_parents=2, n_mutated=2, n_crossed=1)
    assert best_widths(_SPACE, (0.999, 0.9999), width_loss, np.random.default_rng(0), by) is None


def test_published_hyperparameters() -> None:
    drops, widths = DropEvolution(), WidthEvolution()
    assert (drops.n_initial, drops.n_offspring, drops.stages) == (64, 32, ((2, 2048), (1, 32768)))
    assert drops.n_generations(32, 12) == 160
    assert (widths.n_epochs, widths.n_population, widths.n_parents, widths.n_mutated, widths.n_crossed) == (30, 500, 300, 350, 100)
    assert Drops(("none", "attn")).share == 0.25
