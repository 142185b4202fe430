"""Greedy assigner of the GGUF Tool Suite (Thireus and its contributors), written from its description, `docs/quant_assign.md`, section 4.2.

It begins with the largest format everywhere and applies, from a heap, the steps to the next smaller format that add least damage per byte saved,
until the file fits. Then it applies, from a second heap, the steps to the next larger format that remove most damage per byte, as long as they fit.
Formats that are no smaller and do more damage than another of the same tensor are left out first, as its automatic mode does; the exponent is 1,
its default where the damage of each type was measured.
"""

import heapq

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice, Space


def greedy_choice(space: Space, table: NDArray[np.float64], budget_bits: int) -> Choice:
    """Return the greedy choice `(n_units,)` of at most `budget_bits` for a table `(n_units, n_formats)`, or the smallest where none is."""
    ladders = [_ladder(sizes, losses, offered) for sizes, losses, offered in zip(space.size_bits, table, space.offered, strict=True)]
    at = [len(ladder) - 1 for ladder in ladders]
    spent = space.fixed_bits + sum(int(space.size_bits[unit, ladder[-1]]) for unit, ladder in enumerate(ladders))

    def step(unit: int, to: int) -> tuple[float, int]:
        here, there = ladders[unit][at[unit]], ladders[unit][to]
        bits = int(space.size_bits[unit, there] - space.size_bits[unit, here])
        return float(table[unit, there] - table[unit, here]) / bits, bits

    smaller = [(-step(unit, at[unit] - 1)[0], unit) for unit in range(len(ladders)) if at[unit] > 0]
    heapq.heapify(smaller)
    while spent > budget_bits and smaller:
        _, unit = heapq.heappop(smaller)
        spent += step(unit, at[unit] - 1)[1]
        at[unit] -= 1
        if at[unit] > 0:
            heapq.heappush(smaller, (-step(unit, at[unit] - 1)[0], unit))

    larger = [(step(unit, at[unit] + 1)[0], unit) for unit, ladder in enumerate(ladders) if at[unit] + 1 < len(ladder)]
    heapq.heapify(larger)
    while larger:
        _, unit = heapq.heappop(larger)
        bits = step(unit, at[unit] + 1)[1]
        if spent + bits > budget_bits:
            continue
        spent += bits
        at[unit] += 1
        if at[unit] + 1 < len(ladders[unit]):
            heapq.heappush(larger, (step(unit, at[unit] + 1)[0], unit))
    return np.array([ladder[place] for ladder, place in zip(ladders, at, strict=True)], dtype=np.int64)


def _ladder(sizes: NDArray[np.int64], losses: NDArray[np.float64], offered: NDArray[np.bool_]) -> list[int]:
    """Return the formats of a unit from the smallest, each larger one with less damage."""
    ladder: list[int] = []
    for form in sorted(np.flatnonzero(offered).tolist(), key=lambda form: (sizes[form], losses[form])):
        if not ladder or losses[form] < losses[ladder[-1]]:
            ladder.append(form)
    return ladder
