"""Side constraints besides the budget: linear rows over the pairs of a choice, and constructors for the usual ones.

PMQ (MC-MoE, ICLR 2025) asks for at least one expert of each block at 3 bits and one at 2, and for a budget per block; other systems restrict the
search to a window of sizes, with a lower and an upper bound. Tensors that must have equal formats (HAWQ-V3's residual ties) need no row: they are
one unit.
"""

from dataclasses import dataclass
from math import fsum, inf

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces import Choice, Format, Space

#: relative tolerance of a sum whose coefficients are not whole numbers
TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class Row:
    """Side constraint: the sum of `coefficients` `(n_units, n_formats)` over a choice lies between `lower` and `upper`, both included.

    `-inf` and `inf` leave an end open. Coefficients of pairs that are not offered are ignored. Error messages use the row's `name`, if it has one.
    """

    coefficients: NDArray[np.float64]
    lower: float
    upper: float
    name: str = ""

    def holds(self, choice: Choice) -> bool:
        """Return whether a choice `(n_units,)` satisfies the row: exactly for whole coefficients, else up to rounding of the sum."""
        chosen = self.coefficients[np.arange(len(choice)), choice]
        slack = 0.0 if whole(chosen) else TOLERANCE * float(np.abs(chosen).sum())
        return self.lower - slack <= fsum(chosen.tolist()) <= self.upper + slack


def at_least(space: Space, form: Format, n: int, *, units: NDArray[np.bool_]) -> Row:
    """Require `form` for at least `n` of the masked `units` `(n_units,)`."""
    return Row(_in_format(space, form, units), float(n), inf, f"at least {n} of {int(units.sum())} units in {form.name}")


def at_most(space: Space, form: Format, n: int, *, units: NDArray[np.bool_]) -> Row:
    """Require `form` for at most `n` of the masked `units` `(n_units,)`."""
    return Row(_in_format(space, form, units), -inf, float(n), f"at most {n} of {int(units.sum())} units in {form.name}")


def bits_between(space: Space, lower_bits: int, upper_bits: int, *, units: NDArray[np.bool_]) -> Row:
    """Require that the masked `units` `(n_units,)` take from `lower_bits` to `upper_bits` in the file."""
    name = f"{int(units.sum())} units take {lower_bits:,} to {upper_bits:,} bits"
    return Row(np.where(units[:, None], space.size_bits, 0).astype(np.float64), float(lower_bits), float(upper_bits), name)


def window(space: Space, lower_bits: int, upper_bits: int) -> Row:
    """Require that the whole file takes from `lower_bits` to `upper_bits`."""
    fixed = space.fixed_bits
    name = f"the file takes {lower_bits:,} to {upper_bits:,} bits"
    return Row(space.size_bits.astype(np.float64), float(lower_bits - fixed), float(upper_bits - fixed), name)


def layer_budgets(space: Space, bits_per_weight: float) -> tuple[Row, ...]:
    """Return one row per layer that limits its units to `bits_per_weight`. Units outside the layers are free."""
    rows = []
    for layer in sorted({unit.layer for unit in space.units if unit.layer >= 0}):
        units = np.array([unit.layer == layer for unit in space.units])
        upper = int(bits_per_weight * sum(unit.n_weights for unit in space.units if unit.layer == layer))
        coefficients = np.where(units[:, None], space.size_bits, 0).astype(np.float64)
        rows.append(Row(coefficients, -inf, float(upper), f"layer {layer} takes at most {upper:,} bits"))
    return tuple(rows)


def whole(values: NDArray[np.float64]) -> bool:
    """Return whether all values are whole numbers that a float64 sums without rounding."""
    return bool((values == np.rint(values)).all() and np.abs(values).sum() < 2**53)


def _in_format(space: Space, form: Format, units: NDArray[np.bool_]) -> NDArray[np.float64]:
    coefficients = np.zeros(space.offered.shape)
    coefficients[units, space.formats.index(form)] = 1.0
    return coefficients
