"""Neighbours of a structure: what is measured, in which order, and that losses which do not add up are found out."""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from bitwright.pipeline.searching.structure_exchanges import climbed, neighbouring_prices
from bitwright.pipeline.searching.structured_options import StructurePrices
from bitwright.spaces import Structure

_WHOLE = Structure((2, 2, 2), (64, 64, 64))


def prices() -> StructurePrices:
    groups: tuple[Mapping[int, float], ...] = ({2: 0.0}, {2: 0.0, 1: 0.25, 0: 0.5}, {2: 0.0, 0: 0.75})
    channels: tuple[Mapping[int, float], ...] = ({64: 0.0, 32: 1.0}, {64: 0.0, 32: 2.0}, {64: 0.0})
    return StructurePrices(groups, channels, {1: 3.0, 2: 4.0}, tuple(np.linspace(0, 1, 65) for _ in range(3)))


def test_what_goes_of_a_block_is_twice_as_dear() -> None:
    of_channels, of_groups = neighbouring_prices(prices(), Structure((2, 0, 2), (32, 64, 64)), _WHOLE)
    assert of_channels.channels == ({64: 0.0, 32: 2.0}, *prices().channels[1:])
    assert of_groups.groups == (prices().groups[0], {2: 0.0, 1: 0.5, 0: 1.0}, prices().groups[2])
    assert (of_channels.groups, of_groups.channels) == (prices().groups, prices().channels)


def test_a_block_that_is_gone_is_twice_as_dear_as_a_whole() -> None:
    (of_block,) = neighbouring_prices(prices(), _WHOLE.without({2}), _WHOLE)
    assert of_block.blocks == {1: 3.0, 2: 8.0}
    assert (of_block.groups, of_block.channels) == (prices().groups, prices().channels)


def test_nothing_is_dearer_where_nothing_goes() -> None:
    assert not list(neighbouring_prices(prices(), _WHOLE, _WHOLE))


_PRICES = {0: 1.0, 1: 1.1, 2: 1.2, 3: 2.0}


def _true(gone: frozenset[int]) -> float:
    """Loss of parts that are gone, two of which cost more together than their sum."""
    return sum(_PRICES[part] for part in gone) + (5.0 if {0, 1} <= gone else 0.0)


def _cheapest(dearer: dict[int, float]) -> frozenset[int]:
    return min(map(frozenset, combinations(_PRICES, 2)), key=lambda gone: sum(dearer[part] for part in gone))


def _around(found: tuple[frozenset[int], dict[int, float]]) -> Iterator[tuple[frozenset[int], dict[int, float]]]:
    gone, dearer = found
    for part in sorted(gone):
        changed = {**dearer, part: 2 * dearer[part]}
        yield _cheapest(changed), changed


def test_a_pair_that_costs_more_than_its_sum_is_left() -> None:
    start, measured = (_cheapest(_PRICES), _PRICES), list[frozenset[int]]()
    assert start[0] == {0, 1}
    for gone, _ in climbed(start, _around, loss=lambda one: _true(one[0]), key=lambda one: one[0], at_most=8):
        measured.append(gone)
    assert min(measured, key=_true) == min(map(frozenset, combinations(_PRICES, 2)), key=_true) == {0, 2}
    assert len(measured) == len(set(measured))
    assert {0, 1} not in measured


def test_no_more_is_measured_than_allowed() -> None:
    n_measured = list[int]()

    def loss(n: int) -> float:
        n_measured.append(n)
        return -float(n)

    found = list(climbed(0, lambda n: iter([n, n + 1, n + 2]), loss=loss, key=lambda n: n, at_most=5))
    assert found == [1, 2, 3, 4, 5]
    assert n_measured == [0, *found]
