"""Units that decide together: a coarser space of groups, and the way back to the units.

Whole layers (LayerwiseQuant), q, k and v (what fused kernels need), the matrices of an expert: a method that decides about groups works on the coarse
space and never learns of the units.
"""

import re
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.spaces.discover import part_of
from bitwright.spaces.space import Choices, Space
from bitwright.spaces.unit import Unit

_ROLE_IN_FFN = re.compile(r"ffn_(gate|up|down)")
#: a unit -> the name of the group that it is tied into, its own where it decides alone
Key = Callable[[Unit], str]


def by_layer(unit: Unit) -> str:
    """Whole blocks; what stands outside the blocks stays on its own."""
    return f"blk.{unit.layer}" if unit.layer >= 0 else unit.name


def by_expert(unit: Unit) -> str:
    """The matrices of an expert; everything else stays on its own."""
    return f"blk.{unit.layer}.expert.{unit.expert}" if unit.expert >= 0 else unit.name


def by_channels(unit: Unit) -> str:
    """The channels of a part of an expert, or of a feed-forward part that is none: rows of gate and up, and columns of down."""
    part = part_of(unit.tensors[0].name)
    if part < 0:
        return unit.name
    whole = f"expert.{unit.expert}" if unit.expert >= 0 else _ROLE_IN_FFN.sub("ffn", unit.kind)
    return f"blk.{unit.layer}.{whole}.part.{part}"


def alone(unit: Unit) -> str:
    """No ties."""
    return unit.name


def joined(units: tuple[Unit, ...], key: Key) -> tuple[Unit, ...]:
    """One unit for each group, with the tensors of all, in the order of their first members."""
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        groups.setdefault(key(unit), []).append(unit)
    return tuple(_joined(name, members) for name, members in groups.items())


@dataclass(frozen=True, eq=False)
class Tie:
    """`coarse` has a unit for each group of units of `fine`; `group` `(n_units,)` is the group of each unit."""

    fine: Space
    coarse: Space
    group: NDArray[np.int64]

    def expanded(self, choices: Choices) -> Choices:
        """From choices of groups `(..., n_groups)` to choices of units `(..., n_units)`."""
        expanded: Choices = choices[..., self.group]
        return expanded

    def reduced(self, choices: Choices) -> Choices:
        """The inverse of `expanded`: `(..., n_units)` to `(..., n_groups)`, from the first unit of each group."""
        first = np.unique(self.group, return_index=True)[1]
        reduced: Choices = choices[..., first]
        return reduced

    def keeps(self, choices: Choices) -> NDArray[np.bool_]:
        """Which rows of `choices` `(n, n_units)` split no group."""
        keeps: NDArray[np.bool_] = (self.expanded(self.reduced(choices)) == choices).all(axis=1)
        return keeps

    def summed(self, table: NDArray[np.float64]) -> NDArray[np.float64]:
        """From a table of units `(n_units, n_formats)` to one of groups `(n_groups, n_formats)`, zero where a group is not offered a format."""
        summed = np.zeros(self.coarse.offered.shape)
        np.add.at(summed, self.group, np.where(self.coarse.offered[self.group], table, 0.0))
        return summed


def tied(space: Space, key: Key) -> Tie:
    """The space in which units of equal keys are one, offered the formats that all of them are offered.

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
            f"Units that decide together must have a format in common; {', '.join(unit.name for unit in without[0])} have none: name a menu that "
            "all of them can hold with --formats."
        )
    units = tuple(_joined(name, those) for name, those in zip(order, members, strict=True))
    size_bits = np.zeros(offered.shape, dtype=np.int64)
    np.add.at(size_bits, group, np.where(offered[group], space.size_bits, 0))
    return Tie(space, Space(units, space.formats, size_bits, offered, space.fixed_bits, space.n_weights), group)


def _joined(name: str, units: list[Unit]) -> Unit:
    """One unit with the tensors of several, alone or not; of what it is, only that is left which all of them are."""
    first = units[0]
    if len(units) == 1:
        return first
    layer, expert = (first.layer if _alike(unit.layer for unit in units) else -1, first.expert if _alike(unit.expert for unit in units) else -1)
    mixed = "tie" if expert < 0 else "expert"
    kind = first.kind if _alike(unit.kind for unit in units) else mixed
    return Unit(name, layer, kind, tuple(tensor for unit in units for tensor in unit.tensors), expert)


def _alike(values: Iterable[Hashable]) -> bool:
    return len(set(values)) == 1
