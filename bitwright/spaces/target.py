"""Target of the quantization: the formats that an engine can load, its rules and padding, and the search space of a model for it."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np

from bitwright.errors import UserError
from bitwright.spaces.cut import Cut, uncut
from bitwright.spaces.discover import discover, role_of
from bitwright.spaces.format import Absence, Format
from bitwright.spaces.rules import Fused, Rule, RuleViolation, format_violations, fused_violations
from bitwright.spaces.space import Space
from bitwright.spaces.tie import joined
from bitwright.spaces.unit import Tensor, Unit

_REDUCED = re.compile(r"\w+_(\d+OF\d+|R\d+|S\d+(\.\d+)?)")  # the ends of names of formats with fewer weights, and with a pair of low rank


def _none_made(name: str) -> Format | None:  # noqa: ARG001
    return None


@dataclass(frozen=True)
class Target:
    """Capabilities of an engine.

    Every tensor of the file is padded to a multiple of `alignment` bytes. `version` is the engine version that the rules were checked against.
    `rules` are the formats that it cannot load for some tensors, `fused` the units that must share one format; `cut` cuts the tensors that it stores
    in parts. `made` makes further formats from their names, None for a name of none: there are too many to list.
    """

    name: str
    version: str
    formats: tuple[Format, ...]
    alignment: int
    rules: tuple[Rule, ...] = ()
    fused: tuple[Fused, ...] = ()
    cut: Cut = uncut
    made: Callable[[str], Format | None] = _none_made

    @property
    def rule_lines(self) -> tuple[str, ...]:
        """Every rule and tie on a line of its own: its name, what it says, and where it was read."""
        rules = (f"{rule.name}: {rule.sentence}  ({rule.source})" for rule in self.rules)
        return (*rules, *(f"{tie.name}: {tie.sentence}  ({tie.source})" for tie in self.fused))

    def format(self, name: str) -> Format:
        """Return the format called `name`.

        Raises:
            UserError: the target has no format of that name.
        """
        for form in self.formats:
            if form.name == name:
                return form
        made = self.made(name)
        if made is not None:
            return made
        if _REDUCED.fullmatch(name.upper()) and not any(form.reduction for form in self.formats):
            raise UserError(
                f"{self.name} has no format '{name}', since it reads neither fewer weights nor pairs of low rank: choose --target native, or a "
                f"format such as {self.formats[-1].name}."
            )
        close = get_close_matches(name.upper(), [form.name for form in self.formats], n=1)
        known = f"did you mean {close[0]}?" if close else f"choose from {self._listed}."
        raise UserError(f"{self.name} has no format '{name}': {known}")

    @property
    def _listed(self) -> str:
        """The formats by name, those with fewer weights or a pair of low rank by the ends of their names."""
        ends = dict.fromkeys(form.name.rpartition("_")[2] for form in self.formats if form.reduction)
        return ", ".join((*(form.name for form in self.formats if not form.reduction), *(f"…_{end}" for end in ends)))

    def with_made(self, names: Iterable[str]) -> "Target":
        """Return the target with those formats of the `names` behind its own that it makes."""
        listed = {form.name for form in self.formats}
        made = (self.made(name) for name in dict.fromkeys(names) if name not in listed)
        return replace(self, formats=(*self.formats, *(form for form in made if form is not None)))

    def stored_bytes(self, shape: tuple[int, ...], form: Format) -> int:
        """Return the bytes of a tensor in the file, padding included."""
        return -(-form.size_bytes(shape) // self.alignment) * self.alignment

    def together(self, unit: Unit) -> str:
        """Return the name of the fused group of a unit, its own name where it is in none."""
        keys = (tie.key(unit) for tie in self.fused)
        return next((key for key in keys if key != unit.name), unit.name)

    def offers(self, unit: Unit, form: Format) -> bool:
        """Return whether `form` can store every tensor of the unit, and no rule refuses it."""
        return all(self._takes(tensor, form) for tensor in unit.tensors)

    def rule_violations(self, tensors: Iterable[Tensor], formats: Mapping[str, str]) -> tuple[RuleViolation, ...]:
        """Return the violations of the engine's rules by `tensors` in the `formats` of a plan (tensor → format name), others as stored."""
        units, forms = discover(tensors), {form.name: form for form in self.with_made(formats.values()).formats}
        known = {tensor.name: tensor for unit in units for tensor in unit.tensors}
        foreign = [RuleViolation(name, form, f"{self.name} has no such format", self.version) for name, form in formats.items() if form not in forms]
        named = {name: forms[formats[name]] for name in known if formats.get(name) in forms}
        named |= {name: self._kept(tensor) for name, tensor in known.items() if name not in formats}
        wide = [
            RuleViolation(name, f"{form.name} for rows of {known[name].shape[-1]}", "a format must fit the rows of its tensor", self.version)
            for name, form in named.items()
            if not form.fits(known[name].shape)
        ]
        return (*foreign, *wide, *format_violations(self.rules, known, named), *fused_violations(self.fused, units, named))

    def require_keepable(self, units: tuple[Unit, ...], kept: tuple[Unit, ...]) -> None:
        """Raise if this engine could not load the model with the units `kept` of `units` left unquantized.

        Raises:
            UserError: a rule refuses their stored format, or they must share one format with units that are quantized.
        """
        tensors = {tensor.name: tensor for unit in kept for tensor in unit.tensors}
        broken = format_violations(self.rules, tensors, {name: self._kept(tensor) for name, tensor in tensors.items()})
        if broken:
            raise UserError(f"{self.name} {self.version} cannot load {broken[0].tensor} unquantized, since {broken[0].rule}: quantize it.")
        names = {unit.name for unit in kept}
        for tie in self.fused:
            keys = {tie.key(unit) for unit in kept}
            left = next((unit.name for unit in units if unit.name not in names and tie.key(unit) in keys), "")
            if left:
                engine = f"{self.name} {self.version}"
                raise UserError(f"{engine} cannot load only a part of them unquantized, since {tie.sentence}: leave {left} unquantized too, or none.")

    def _kept(self, tensor: Tensor) -> Format:
        """Return the format of an unquantized tensor: floats where the target does not have the format it is stored in."""
        return next((form for form in self.formats if form.name == tensor.stored), self.formats[0])

    def _takes(self, tensor: Tensor, form: Format) -> bool:
        return form.fits(tensor.shape) and all(rule.allows(tensor, form) for rule in self.rules)

    def space(self, units: tuple[Unit, ...], *, menu: Iterable[str], fixed_bytes: int, n_weights: int) -> Space:
        """Return the search space of `units`, joined where the engine fuses them, × the formats named in `menu` (where it is empty, all of the target
        but those offered only by name, such as `DROP` and `PRUNE`).

        A unit that no format of the menu fits gets the formats of the target that do, so that a narrow menu never makes a model impossible. Layers
        that are initialised while they are loaded get 8-bit floats in place of the formats that they cannot have.

        Raises:
            UserError: a name in the menu is not a format of this target.
        """
        units = joined(units, self.together)
        wanted = {self.format(name).name for name in menu}
        is_stored = np.array([not isinstance(form, Absence) for form in self.formats])
        usual = np.array([not form.only_named for form in self.formats])
        named = np.array([form.name in wanted or not (wanted or form.only_named) for form in self.formats])
        alike = [tuple(self._alike(tensor) for tensor in unit.tensors) for unit in units]
        kinds = {kind: i for i, kind in enumerate(dict.fromkeys(alike))}  # ten thousand experts are of few kinds
        of_kind = np.array([kinds[kind] for kind in alike])  # (n_units,)
        bits = np.array([[self._bits(kind, form) for form in self.formats] for kind in kinds], dtype=np.int64)[of_kind]
        possible, stored = bits >= 0, (bits >= 0) & is_stored
        offered = np.where((stored & named).any(axis=1)[:, None], stored & named, stored & usual)
        offered |= possible & named & ~is_stored
        initialised = np.array([any(tensor.initialised for tensor in kind) for kind in kinds])[of_kind]
        stand_in = np.array([form.only_named and form.scheme is not None and not form.scheme.inputs for form in self.formats])
        offered |= stored & stand_in & (initialised & (named & ~possible).any(axis=1))[:, None]
        return Space(units, self.formats, np.where(offered, bits, 0), offered, 8 * fixed_bytes, n_weights)

    def _alike(self, tensor: Tensor) -> Tensor:
        """Return the tensor with nothing but what its formats and their sizes depend on."""
        return Tensor("", tensor.shape, "", role_of(tensor) if self.rules else "", initialised=tensor.initialised)

    def _bits(self, tensors: tuple[Tensor, ...], form: Format) -> int:
        """Return the bits of tensors in the file, or -1 where `form` cannot store all of them."""
        possible = all(self._takes(tensor, form) for tensor in tensors)
        return 8 * sum(self.stored_bytes(tensor.shape, form) for tensor in tensors) if possible else -1
