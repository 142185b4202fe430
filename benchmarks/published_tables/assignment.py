"""Compare the exact solver with the greedy assigner on the published tables: sensitivity of a tensor × damage of a type on the whole model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.published_tables.greedy_assigner import greedy_choice
from benchmarks.published_tables.tables import MAINLINE, Published, layer_of, role_within
from bitwright.engines import LLAMA_CPP
from bitwright.predictors import summed
from bitwright.search import sizes_between, solve
from bitwright.spaces import Space, Tensor, Unit

_SHARES = 0.01, 0.9  # of the way from the smallest file to the largest
_ROUNDING = 1e-9  # relative


@dataclass(frozen=True)
class Contest:
    """Sums of damage at several budgets, `(n,)` each, of the exact solver and of the greedy assigner."""

    exact: NDArray[np.float64]
    greedy: NDArray[np.float64]

    @property
    def ratios(self) -> NDArray[np.float64]:
        """Sum of the greedy assigner over that of the solver `(n,)`."""
        return self.greedy / self.exact

    @property
    def n_won(self) -> int:
        """Number of budgets at which the solver's sum is lower by more than rounding."""
        return int((self.ratios > 1 + _ROUNDING).sum())

    @property
    def n_lost(self) -> int:
        """Number of budgets at which the solver's sum is higher by more than rounding."""
        return int((self.ratios < 1 - _ROUNDING).sum())


def instance(model: Published) -> tuple[Space, NDArray[np.float64]]:
    """Return the space of the measured tensors × measured mainline types, and the table of damages `(n_units, n_formats)`."""
    names = [name for name in model.singles if name in model.shapes]
    tensors = [Tensor(name, model.shapes[name], "BF16") for name in names]
    units = tuple(Unit(tensor.name, layer_of(tensor.name), role_within(tensor.name), (tensor,)) for tensor in tensors)
    menu = [form for form in MAINLINE if form in model.whole]
    space = LLAMA_CPP.space(units, menu=[form.upper() for form in menu], fixed_bytes=0, n_weights=sum(unit.n_weights for unit in units))
    of_type = {form.upper(): model.whole[form] for form in menu}
    damage = np.array([of_type.get(form.name, 0.0) for form in space.formats])  # (n_formats,)
    return space, np.array([model.singles[name] for name in names])[:, None] * damage


def contest(model: Published, n_budgets: int) -> Contest:
    """Solve the tables of a model at `n_budgets` budgets in both ways."""
    space, table = instance(model)
    budgets = [int(8 * size) for size in sizes_between(space, *_SHARES, n_budgets)]
    exact = [summed(table, solve(space, table, budget).choice) for budget in budgets]
    greedy = [summed(table, greedy_choice(space, table, budget)) for budget in budgets]
    return Contest(np.array(exact), np.array(greedy))
