"""The `quantization` entry of an mlx-lm `config.json`.

Grammar: `mlx_lm.utils.load_model` 0.32: defaults `group_size`, `bits`, `mode`, and a path → `{group_size, bits, mode}`, or false for a module that
stays. Affine mode has a scale and a bias for each group, the very grid of `IntegerFormat`; it has 2, 3, 4, 5, 6 and 8 bits in groups of 32, 64, 128.
"""

import json
from collections.abc import Mapping

from bitwright.dialects.dialect import FLOATS, Dialect, Names, integer, integer_name, mapping, module_of, parsed, unsayable
from bitwright.errors import PlanError

_BITS, _GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)


class Mlx(Dialect):
    """See the module; modules that are not named stay as they are."""

    name = "mlx"

    def write(self, formats: Mapping[str, str], names: Names) -> str:
        """See `Dialect.write`."""
        entries = {module_of(names, tensor, self.name): self._entry(tensor, form) for tensor, form in formats.items()}
        return json.dumps({"quantization": {"group_size": 64, "bits": 4, "mode": "affine", **entries}}, indent=2) + "\n"

    def read(self, text: str, names: Names) -> dict[str, str]:
        """See `Dialect.read`."""
        whole = parsed(text, self.name)
        entries = mapping(whole.get("quantization"), self.name, "'quantization'")
        found = {}
        for tensor, module in names.items():
            if entries.get(module) in (None, False):
                continue
            entry = mapping(entries[module], self.name, module)
            if (mode := entry.get("mode", "affine")) != "affine":
                raise PlanError(f"{self.name} asks for mode '{mode}' for {module}, and only affine is a format here: change the mode.")
            found[tensor] = integer_name(entry.get("bits"), entry.get("group_size"), self.name, module)
        return found

    def _entry(self, tensor: str, form: str) -> object:
        if form in FLOATS:
            return False
        asked = integer(tensor, form, self.name)
        if asked.bits not in _BITS or asked.group not in _GROUPS:
            raise unsayable(self.name, tensor, form, "it has 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128")
        return {"group_size": asked.group, "bits": asked.bits, "mode": "affine"}
