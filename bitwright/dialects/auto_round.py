"""AutoRound's `layer_config` as a dialect.

Grammar: `layer_config_resolver` of auto-round 0.16: module → a mapping of `bits`, `group_size` (-1 for a row), `sym`, `data_type`, ... Its asymmetric
integers have an integer zero point, like `PackedFormat`, where `IntegerFormat` has a minimum; the codes are the tool's own. Layers of its blocks
that are not named get its default scheme, so all are named. It leaves embeddings unquantized, and, silently, matrices whose sides 32 does not
divide; it refuses asymmetric 8-bit integers. Regular expressions, names of presets and activations are not read.
"""

import json
from collections.abc import Mapping
from typing import Any

from bitwright.dialects.dialect import EMBEDDING, FLOATS, Dialect, Modules, Offered, inexpressible, integer_scheme, module_of
from bitwright.dialects.entries import Reader, left_to_defaults, mapping, parsed, require_known
from bitwright.errors import PlanError, shown
from bitwright.spaces import expert_of

_STAYS = {"bits": 16, "act_bits": 16, "data_type": "float", "act_data_type": "float"}
_KEYS = ("bits", "group_size", "sym", "data_type")
_SIDE = 32


class AutoRound(Dialect):
    """AutoRound's `layer_config`, in JSON."""

    name = "autoround"

    def write(self, formats: Mapping[str, str], modules: Modules) -> str:
        """Return JSON with the bits and group size of each module, 16 bits for those left as stored."""
        entries = {module.name: dict(_STAYS) for module in modules.values() if module.role != EMBEDDING}
        for tensor, form in formats.items():
            module = module_of(modules, tensor, self.name)
            if form not in FLOATS:
                entries[module.name] = self._entry(tensor, form, modules)
        return json.dumps(entries, indent=2) + "\n"

    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:
        """Parse JSON with the bits and group size of each module."""
        entries, found = parsed(text, self.name), {}
        known = {module.name for module in modules.values()}
        for key in entries:
            if key not in known:
                raise PlanError(
                    f"Keys of {self.name} must be modules of the model; '{shown(key)}' is none (expressions are not read): name each module."
                )
        for tensor, module in modules.items():
            if module.name not in entries and expert_of(tensor)[0] >= 0:
                raise left_to_defaults(self.name, module.name, "name it, with bits 16 where it stays")
            form = self._format(entries.get(module.name, _STAYS), module.name, Reader(self.name, offered))
            if form not in FLOATS:
                found[tensor] = form
        return found

    def _entry(self, tensor: str, form: str, modules: Modules) -> dict[str, Any]:
        asked, shape = integer_scheme(tensor, form, dialect=self.name, modules=modules), modules[tensor].shape
        if modules[tensor].role == EMBEDDING:
            raise inexpressible(self.name, tensor, form, "it quantizes no embeddings")
        if asked.bits == 8 and not asked.symmetric:
            raise inexpressible(self.name, tensor, form, "it has no asymmetric integers of 8 bits")
        if any(side % _SIDE for side in shape):
            raise inexpressible(
                self.name, tensor, form, f"it leaves matrices whose sides {_SIDE} does not divide unquantized, and this one is {shape}"
            )
        return {"bits": asked.bits, "group_size": asked.group or -1, "sym": asked.symmetric, "data_type": "int"}

    def _format(self, described: object, module: str, reader: Reader) -> str:
        entry = mapping(described, self.name, module)
        if entry.get("bits") == _STAYS["bits"]:
            return FLOATS[0]
        require_known({**entry, "act_bits": None} if entry.get("act_bits") == _STAYS["act_bits"] else entry, _KEYS, dialect=self.name, module=module)
        if entry.get("data_type", "int") != "int":
            raise PlanError(f"{self.name} asks for data_type '{shown(entry['data_type'])}' for {module}, and only int is a format here: change it.")
        return reader.named(entry.get("bits"), entry.get("group_size"), symmetric=entry.get("sym"), module=module)
