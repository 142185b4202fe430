"""Search space: units × formats, with the exact size of each pair."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitwright.spaces.format import Format
from bitwright.spaces.unit import Unit

Choice = NDArray[np.int64]  # (n_units,): the index of a format for each unit
Choices = NDArray[np.int64]  # (n, n_units)


@dataclass(frozen=True, eq=False)
class Space:
    """Search space of units × formats.

    `size_bits` is `(n_units, n_formats)` int64, padding in the file included; `offered` is `(n_units, n_formats)` bool, and where it is false the
    pair does not exist and its size is meaningless. `fixed_bits` is the rest of the file: metadata, tokenizer and unquantized tensors. `n_weights`
    counts every weight of the model, quantized or not.
    """

    units: tuple[Unit, ...]
    formats: tuple[Format, ...]
    size_bits: NDArray[np.int64]
    offered: NDArray[np.bool_]
    fixed_bits: int
    n_weights: int

    def __post_init__(self) -> None:
        expected = (len(self.units), len(self.formats))
        if self.size_bits.shape != expected or self.offered.shape != expected:
            raise ValueError(f"a space of {expected} pairs cannot have tables of shape {self.size_bits.shape} and {self.offered.shape}")
        without = [unit.name for unit, row in zip(self.units, self.offered, strict=True) if not row.any()]
        if without:
            raise ValueError(f"no format is left for {', '.join(without)}")

    def total_bits(self, choices: Choices) -> NDArray[np.int64]:
        """Return the bits of the whole file for each row of `choices` `(..., n_units)`: shape `(...)`."""
        total: NDArray[np.int64] = self.size_bits[np.arange(len(self.units)), choices].sum(axis=-1) + self.fixed_bits
        return total

    def total_bytes(self, choice: Choice) -> int:
        """Return the bytes of the whole file for one choice `(n_units,)`."""
        return int(self.total_bits(choice)) // 8

    def bits_per_weight(self, choice: Choice) -> float:
        """Return the bits of the whole file per weight of the model (bpw)."""
        return float(self.total_bits(choice)) / self.n_weights

    def names(self, choice: Choice) -> dict[str, str]:
        """Return tensor name → format name of a choice `(n_units,)`, as a plan records it."""
        return {tensor.name: self.formats[index].name for unit, index in zip(self.units, choice, strict=True) for tensor in unit.tensors}

    def choice(self, names: dict[str, str]) -> Choice:
        """Return the choice `(n_units,)` of a mapping tensor name → format name: the inverse of `names`.

        Raises:
            KeyError: a tensor is missing, or a format is not offered for it.
        """
        index = {form.name: i for i, form in enumerate(self.formats)}
        chosen = np.array([index[names[unit.tensors[0].name]] for unit in self.units], dtype=np.int64)
        for unit, i, offered in zip(self.units, chosen, self.offered, strict=True):
            if not offered[i] or any(names[tensor.name] != self.formats[i].name for tensor in unit.tensors):
                raise KeyError(unit.name)
        return chosen

    def smallest(self) -> Choice:
        """Return the choice with the fewest bits `(n_units,)`."""
        return self._cheapest(self.offered)

    def largest(self) -> Choice:
        """Return the choice with the most bits `(n_units,)`."""
        largest: Choice = np.where(self.offered, self.size_bits, -1).argmax(axis=1)
        return largest

    def uniform(self, form: Format) -> Choice:
        """Return the choice `(n_units,)` of one format; a unit not offered it gets its smallest format that is no coarser, else its finest."""
        width = np.array([other.bits_per_weight for other in self.formats])
        enough = self.offered & np.greater_equal(width, form.bits_per_weight)
        finest = self.offered & (width == np.where(self.offered, width, 0).max(axis=1, keepdims=True))
        choice = self._cheapest(np.where(enough.any(axis=1)[:, None], enough, finest))
        index = self.formats.index(form)
        return np.where(self.offered[:, index], index, choice)

    def narrowed(self, offered: NDArray[np.bool_]) -> "Space":
        """Return the space with only the pairs that both it and `offered` `(n_units, n_formats)` offer."""
        return replace(self, offered=self.offered & offered)

    def _cheapest(self, among: NDArray[np.bool_]) -> Choice:
        cheapest: Choice = np.where(among, self.size_bits, np.iinfo(np.int64).max).argmin(axis=1)
        return cheapest
