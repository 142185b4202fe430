"""Neighbours of a structure that was measured: something else goes in place of a part of it.

Losses of parts that are taken away do not add up, so a solution by their sum may take parts that cost more together than others would. Its neighbours
are the solutions with the price of what it takes of one block doubled.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from bitwright.pipeline.searching.structured_options import StructurePrices
from bitwright.spaces import Structure

_DEARER = 2.0
_S = TypeVar("_S")


def neighbouring_prices(prices: StructurePrices, kept: Structure, whole: Structure) -> Iterator[StructurePrices]:
    """Yield the prices with those of a block, its attention or its channels doubled, for each of which a structure keeps less than the whole."""
    for layer in range(whole.n_layers):
        if layer in kept.gone:
            yield replace(prices, blocks={i: nats * (_DEARER if i == layer else 1) for i, nats in prices.blocks.items()})
            continue
        if kept.head_groups[layer] < whole.head_groups[layer]:
            yield replace(prices, groups=_dearer(prices.groups, layer))
        if kept.channels[layer] < whole.channels[layer]:
            yield replace(prices, channels=_dearer(prices.channels, layer))


def climbed(
    start: _S, around: Callable[[_S], Iterator[_S]], *, loss: Callable[[_S], float], key: Callable[[_S], Hashable], at_most: int
) -> Iterator[_S]:
    """Yield the neighbours that are measured, from those of `start` on: the first that is better than the best so far takes its place. None is
    measured twice, by its `key`, and not more than `at_most`.
    """
    neighbours, least, seen = around(start), loss(start), {key(start)}
    while len(seen) <= at_most and (found := next(neighbours, None)) is not None:
        if key(found) in seen:
            continue
        seen.add(key(found))
        yield found
        if (nats := loss(found)) < least:
            least, neighbours = nats, around(found)


def _dearer(prices: tuple[Mapping[int, float], ...], layer: int) -> tuple[Mapping[int, float], ...]:
    doubled = {kept: _DEARER * nats for kept, nats in prices[layer].items()}
    return (*prices[:layer], doubled, *prices[layer + 1 :])
