"""Parse budgets (`90MB`, `4.6bpw`) into bytes of the finished file.

>>> parse_budget("90MB").size_bytes(135_000_000)
90000000
>>> parse_budget("85.8 MiB").size_bytes(135_000_000)
89967820
>>> parse_budget("4.6bpw").size_bytes(1_000_000)
575000
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from bitwright.errors import BudgetError, shown

_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_BUDGET = re.compile(r"\s*(\d{1,1000}(?:\.\d{0,1000})?|\.\d{1,1000})\s*([a-zA-Z]+)\s*")


@dataclass(frozen=True)
class Budget:
    """Upper bound on the size of the finished file: bytes, or bits per weight (bpw) over all weights, metadata included."""

    text: str
    amount: Fraction
    unit: str

    def size_bytes(self, n_weights: int) -> int:
        """Return the bound in whole bytes for a model of `n_weights` weights."""
        return int(self.amount * n_weights / 8) if self.unit == "bpw" else int(self.amount * _UNITS[self.unit])


def parse_budget(text: str) -> Budget:
    """Read `90MB`, `85.8MiB`, `0.4GB` or `4.6bpw`.

    Raises:
        BudgetError: the number or the unit is missing, the unit is unknown, or the number is zero.
    """
    found = _BUDGET.fullmatch(text)
    unit = found[2].lower() if found else ""
    if not found or unit not in {*_UNITS, "bpw"}:
        raise BudgetError(f"A budget is a number and a unit (90MB, 85.8MiB, 0.4GB, 4.6bpw); '{shown(text)}' is not: write it like one of these.")
    amount = Fraction(found[1])  # a float would lose a byte of 8.2GB
    if amount <= 0:
        raise BudgetError(f"A budget must be greater than zero; '{text}' is not: name the largest size that the file may have.")
    return Budget(text.strip(), amount, unit)
