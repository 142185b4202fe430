"""Pruning configurations of EvoPress: a line `module: level` for each matrix of the blocks, levels relative to an average share that is pruned.

Grammar and meaning as in `prune.py`, `src/pruner.py` and `load_sparse_weights` of EvoPress (Sieberling et al., ICML 2025, arXiv 2410.14649): with an
average share s, a matrix of n weights at level l lacks s n + l d of them, where d = ⌊min(s, 1 − s) / 16 · hidden²⌋ whatever the matrix; so levels
that add up to zero keep the average exact. The file does not say s, so there is a dialect for each that was published: `evopress-50`, `-60`, `-70`.

Formats here prune equally many weights of every row. What rounding to whole weights of a row leaves is added to the matrix that follows, so that all
rows together lack what the file says, to half a weight for each row of the last. Kept weights are bfloat16. Only a matrix that lacks nothing
stays as it is stored.
"""

import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import prod

from bitwright.dialects.dialect import EMBEDDING, FLOATS, HEAD, Dialect, Module, Modules, Offered, inexpressible, module_of
from bitwright.dialects.entries import left_to_defaults, require_used
from bitwright.errors import PlanError, shown
from bitwright.spaces import Format, PrunedShare, SparseFormat, share_format, without_share

_BASE = "BF16"
_WHOLE = 100_000  # thousandths of a percent
_LEVELS = 8
_LINE = re.compile(r"\s*([\w.]+)\s*:\s*([+-]?\d{1,3})\s*")
_HIDDEN = ("q_proj", "qkv_proj")  # their rows have as many weights as a hidden state
SHARES = (50, 60, 70)


class EvoPressPruning(Dialect):
    """Levels around an average of `percent` of the weights pruned."""

    def __init__(self, percent: int) -> None:
        self.name = f"evopress-{percent}"  # type: ignore[misc]  # a name for each average
        self.average = Fraction(percent, 100)

    def expresses(self, formats: Iterable[Format]) -> bool:
        """Return whether any of the `formats` lacks a share of each row."""
        return any(isinstance(form, SparseFormat) and isinstance(form.pattern, PrunedShare) for form in formats)

    def write(self, formats: Mapping[str, str], modules: Modules) -> str:
        """Return a line with the nearest level of each matrix, 0 % for one that stays as it is stored.

        Raises:
            PlanError: a format lacks no share of a row, or these levels are read as other formats.
        """
        named = {module_of(modules, tensor, self.name).name for tensor in formats}
        inside = {tensor: module for tensor, module in modules.items() if module.name in named or module.role not in (EMBEDDING, HEAD)}
        levels = {tensor: self._level(tensor, formats.get(tensor, _BASE), inside) for tensor in inside}
        text = "".join(f"{inside[tensor].name}: {level}\n" for tensor, level in levels.items())
        read = self.read(text, modules, {})
        for tensor, form in formats.items():
            if read.get(tensor, _BASE) != form and form not in FLOATS:
                raise inexpressible(self.name, tensor, form, f"its level nearest to that is {read.get(tensor, _BASE)}")
        return text

    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:  # noqa: ARG002  shares are no schemes
        """Parse lines `module: level`."""
        levels = self._levels(text)
        require_used(levels, {module.name for module in modules.values()}, self.name)
        by_name = {module.name: tensor for tensor, module in modules.items()}
        for module in modules.values():
            if module.name not in levels and module.role not in (EMBEDDING, HEAD):
                raise left_to_defaults(self.name, module.name, "give it a level")
        step, left, found = self._step(modules), Fraction(0), {}
        for name, level in levels.items():
            n_rows, n_columns = _matrix(modules[by_name[name]])
            wanted = self.average * n_columns + Fraction(level * step, n_rows)
            if not 0 <= wanted < n_columns:
                share = f"{float(wanted / n_columns):.1%}"
                raise PlanError(f"A level must leave weights in a matrix; {level} for {shown(name)} prunes {share} of it: change the level.")
            pruned = min(max(round(wanted + left / n_rows), 0), n_columns - 1)
            left += (wanted - pruned) * n_rows
            if pruned:
                found[by_name[name]] = without_share(_BASE, -(-pruned * _WHOLE // n_columns)).name
        return {tensor: found[tensor] for tensor in modules if tensor in found}

    def _levels(self, text: str) -> dict[str, int]:
        levels: dict[str, int] = {}
        for line in filter(str.strip, text.splitlines()):
            found = _LINE.fullmatch(line)
            if found is None or found[1] in levels:
                raise PlanError(
                    f"A line of {self.name} must be a module, a colon and its level, each module once; '{shown(line)}' is not: write it as in "
                    "model.layers.0.mlp.up_proj: -2."
                )
            levels[found[1]] = int(found[2])
        return levels

    def _step(self, modules: Modules) -> int:
        """Return the weights between two levels."""
        hidden = next((module.shape[-1] for module in modules.values() if module.name.rpartition(".")[2] in _HIDDEN), 0)
        if not hidden:
            raise PlanError(
                f"Levels of {self.name} are counted by the width of a hidden state, that of {' or '.join(_HIDDEN)}; this model has neither as a "
                "matrix of its own: choose another dialect."
            )
        return int(min(self.average, 1 - self.average) / (2 * _LEVELS) * hidden**2)

    def _level(self, tensor: str, name: str, modules: Modules) -> int:
        form, (n_rows, n_columns) = share_format(name), _matrix(modules[tensor])
        if name not in FLOATS and (form is None or form.base.name != _BASE):
            raise inexpressible(self.name, tensor, name, "it expresses a share of bfloat16 weights that are pruned")
        pruned = n_columns - form.pattern.n_kept(n_columns) if form is not None else 0
        return round((pruned - self.average * n_columns) * n_rows / self._step(modules))


def _matrix(module: Module) -> tuple[int, int]:
    """Return the rows and columns of a module's weight."""
    return prod(module.shape[:-1]), module.shape[-1]
