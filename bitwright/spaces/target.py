"""What an engine can load, as a value: its formats, how it pads, and so the space of a given model."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

import numpy as np

from bitwright.errors import UserError
from bitwright.spaces.format import GGML_FORMATS, INTEGER_FORMATS, Format
from bitwright.spaces.space import Space
from bitwright.spaces.tie import Key, alone, by_expert, joined
from bitwright.spaces.unit import Unit


@dataclass(frozen=True)
class Target:
    """An engine's capabilities.

    `alignment` is the number of bytes that every tensor of the file is padded to. `version` is what the rules were checked against. `together` names
    what the engine wants in one format; where `experts_apart` the experts of a block are tensors of their own, else the block has one for all.
    `container` is how a model is written for it, `none` where it is no engine's.
    """

    name: str
    version: str
    formats: tuple[Format, ...]
    alignment: int
    together: Key = alone
    experts_apart: bool = False
    container: Literal["none", "gguf"] = "none"

    @property
    def file_name(self) -> str:
        """What a model for this target is called where nobody says: a file, or a folder."""
        return "model.gguf" if self.container == "gguf" else "model"

    def format(self, name: str) -> Format:
        """The format of that name.

        Raises:
            UserError: the target has none of that name.
        """
        for form in self.formats:
            if form.name == name:
                return form
        close = get_close_matches(name.upper(), [form.name for form in self.formats], n=1)
        known = f"did you mean {close[0]}?" if close else f"choose from {', '.join(form.name for form in self.formats)}."
        raise UserError(f"{self.name} has no format '{name}': {known}")

    def stored_bytes(self, shape: tuple[int, ...], form: Format) -> int:
        """Bytes of a tensor in the file, the padding behind it included."""
        return -(-form.size_bytes(shape) // self.alignment) * self.alignment

    def offers(self, unit: Unit, form: Format) -> bool:
        """Whether `form` can store every tensor of the unit."""
        return all(form.fits(tensor.shape) for tensor in unit.tensors)

    def space(self, units: tuple[Unit, ...], *, menu: Iterable[str], fixed_bytes: int, n_weights: int) -> Space:
        """Units, joined where the engine wants them together, × the formats named in `menu` (all of the target's when it is empty).

        A unit that none of the menu fits gets the formats of the target that do, so that a narrow menu never makes a model impossible.

        Raises:
            UserError: a name of the menu is not a format of this target.
        """
        units = joined(units, self.together)
        wanted = {self.format(name).name for name in menu} or {form.name for form in self.formats}
        named = np.array([form.name in wanted for form in self.formats])
        shapes = [tuple(tensor.shape for tensor in unit.tensors) for unit in units]
        kinds = {kind: i for i, kind in enumerate(dict.fromkeys(shapes))}  # ten thousand experts have few shapes
        of_kind = np.array([kinds[kind] for kind in shapes])  # (n_units,)
        bits = np.array([[self._bits(kind, form) for form in self.formats] for kind in kinds], dtype=np.int64)[of_kind]
        possible = bits >= 0
        offered = np.where((possible & named).any(axis=1)[:, None], possible & named, possible)
        return Space(units, self.formats, np.where(offered, bits, 0), offered, 8 * fixed_bytes, n_weights)

    def _bits(self, shapes: tuple[tuple[int, ...], ...], form: Format) -> int:
        """Bits of tensors of these shapes in the file, or -1 where `form` cannot store all of them."""
        return 8 * sum(self.stored_bytes(shape, form) for shape in shapes) if all(form.fits(shape) for shape in shapes) else -1


LLAMA_CPP = Target("llama.cpp", "b11549", GGML_FORMATS, alignment=32, container="gguf")
#: No engine's: packed integers as the papers of the field use them, to compare methods and for small models whose rows no block of GGUF divides.
INTEGERS = Target("integers", "1", INTEGER_FORMATS, alignment=1)
#: Packed integers with each expert in a format of its own. Nothing writes or loads such a checkpoint yet: it is for spaces and comparisons.
NATIVE = Target("native", "1", INTEGER_FORMATS, alignment=1, together=by_expert, experts_apart=True)
TARGETS = {target.name: target for target in (LLAMA_CPP, INTEGERS, NATIVE)}
