"""Tie units into groups that share one format: a coarser space of groups, and the mapping back to the units.

Groups are whole layers (LayerwiseQuant), q, k and v (fused kernels), or the matrices of an expert. A method that chooses per group works on the
coarse space and never sees the units.
"""

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.spaces.discover import block_of, expert_path, part_of
from bitwright.spaces.space import Choices, Space
from bitwright.spaces.unit import Unit

_ROLE_IN_FFN = re.compile(r"ffn_(gate|up|down)")
#: a unit -> the name of its group, its own name where it is not tied
Key = Callable[[Unit], str]


def by_layer(unit: Unit) -> str:
    """Group by transformer block; tensors outside the blocks stay alone."""
    return block_of(unit.name) if unit.layer >= 0 else unit.name


def by_expert(unit: Unit) -> str:
    """Group the matrices of each expert; all other units stay alone."""
    return expert_path(unit) if unit.expert >= 0 else unit.name


def by_channels(unit: Unit) -> str:
    """Group the matrices of a channel range of an expert or dense feed-forward layer: rows of gate and up, and columns of down."""
    part = part_of(unit.tensors[0].name)
    if part < 0:
        return unit.name
    whole = expert_path(unit) if unit.expert >= 0 else f"{block_of(unit.name)}.{_ROLE_IN_FFN.sub('ffn', unit.kind)}"
    return f"{whole}.part.{part}"


def alone(unit: Unit) -> str:
    """Tie nothing: every unit is a group of its own."""
    return unit.name


def joined(units: tuple[Unit, ...], key: Key) -> tuple[Unit, ...]:
    """Return one unit per group with the tensors of all its members, in the order of the first members."""
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        groups.setdefault(key(unit), []).append(unit)
    return tuple(_joined(name, members) for name, members in groups.items())


@dataclass(frozen=True, eq=False)
class Tie:
    """Mapping between two spaces: `coarse` has one unit per group of units of `fine`; `group` `(n_units,)` is the group index of each unit."""

    fine: Space
    coarse: Space
    group: NDArray[np.int64]

    def expanded(self, choices: Choices) -> Choices:
        """Map choices of groups `(..., n_groups)` to choices of units `(..., n_units)`."""
        expanded: Choices = choices[..., self.group]
        return expanded

    def reduced(self, choices: Choices) -> Choices:
        """Map choices of units `(..., n_units)` to choices of groups `(..., n_groups)` by the first unit of each group: the inverse of `expanded`."""
        first = np.unique(self.group, return_index=True)[1]
        reduced: Choices = choices[..., first]
        return reduced

    def keeps(self, choices: Choices) -> NDArray[np.bool_]:
        """Mask of the rows of `choices` `(n, n_units)` that split no group: `(n,)`."""
        keeps: NDArray[np.bool_] = (self.expanded(self.reduced(choices)) == choices).all(axis=1)
        return keeps

    def summed(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum a table of units `(n_units, n_formats)` over each group: `(n_groups, n_formats)`, zero where a group is not offered a format."""
        summed = np.zeros(self.coarse.offered.shape)
        np.add.at(summed, self.group, np.where(self.coarse.offered[self.group], table, 0.0))
        return summed


def tied(space: Space, key: Key) -> Tie:
    """Tie units of equal keys into one group, offered the formats that all its units are offered.

    Raises:
        UserError: a group has no format in common.
    """
    keys = [key(unit) for unit in space.units]
    order = {of_group: i for i, of_group in enumerate(dict.fromkeys(keys))}
    group = np.array([order[of_unit] for of_unit in keys], dtype=np.int64)
    members: list[list[Unit]] = [[] for _ in order]
    for unit, g in zip(space.units, group, strict=True):
        members[g].append(unit)
    offered = np.ones((len(order), len(space.formats)), dtype=np.bool_)
    np.logical_and.at(offered, group, space.offered)
    without = [units for units, row in zip(members, offered, strict=True) if not row.any()]
    if without:
        raise UserError(
            f"Tied units must have a format in common; {', '.join(unit.name for unit in without[0])} have none: name formats that all of them "
            "can hold with --formats."
        )
    units = tuple(_joined(name, those) for name, those in zip(order, members, strict=True))
    size_bits = np.zeros(offered.shape, dtype=np.int64)
    np.add.at(size_bits, group, np.where(offered[group], space.size_bits, 0))
    return Tie(space, Space(units, space.formats, size_bits, offered, space.fixed_bits, space.n_weights), group)


def _joined(name: str, units: list[Unit]) -> Unit:
    """Return one unit with the tensors of several; it has their layer, role and expert only where all agree."""
    first = units[0]
    if len(units) == 1:
        return first
    layer, expert = (first.layer if _alike(unit.layer for unit in units) else -1, first.expert if _alike(unit.expert for unit in units) else -1)
    mixed = "tie" if expert < 0 else "expert"
    kind = first.kind if _alike(unit.kind for unit in units) else mixed
    return Unit(name, layer, kind, tuple(tensor for unit in units for tensor in unit.tensors), expert)


def _alike(values: Iterable[Hashable]) -> bool:
    return len(set(values)) == 1
