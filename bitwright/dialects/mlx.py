"""`quantization` entry of an mlx-lm `config.json` as a dialect.

Grammar: `mlx_lm.utils.load_model` 0.32: defaults `group_size`, `bits`, `mode`, and a path → `{group_size, bits, mode}`, or false for a module that
stays. Whether a module that is not named is quantized depends on the weights beside the file, so all are named. Affine mode has a scale and a bias
per group, like the scale and minimum of `IntegerFormat`, but mlx chooses them by a rule of its own. It has 2, 3, 4, 5, 6 and 8 bits in groups of
32, 64 and 128.
"""

import json
from collections.abc import Mapping

from bitwright.dialects.dialect import FLOATS, Dialect, Modules, Offered, inexpressible, integer_scheme, module_of
from bitwright.dialects.entries import Reader, left_to_defaults, mapping, parsed, require_known, require_used
from bitwright.errors import PlanError, shown

_DEFAULTS = ("group_size", "bits", "mode")
_BITS, _GROUPS = (2, 3, 4, 5, 6, 8), (32, 64, 128)


class Mlx(Dialect):
    """Per-layer `quantization` of an mlx-lm `config.json`."""

    name = "mlx"

    def write(self, formats: Mapping[str, str], modules: Modules) -> str:
        """Return JSON with the bits and group size of each module, `false` for those left as stored."""
        entries: dict[str, object] = {module.name: False for module in modules.values()}
        for tensor, form in formats.items():
            entries[module_of(modules, tensor, self.name).name] = self._entry(tensor, form, modules)
        return json.dumps({"quantization": {"group_size": 64, "bits": 4, "mode": "affine", **entries}}, indent=2) + "\n"

    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:
        """Parse the `quantization` of a configuration."""
        entries, found = mapping(parsed(text, self.name).get("quantization"), self.name, "'quantization'"), {}
        require_used(entries, {*_DEFAULTS, *(module.name for module in modules.values())}, self.name)
        for tensor, module in modules.items():
            if module.name not in entries:
                raise left_to_defaults(self.name, module.name, "name it, with false where it stays")
            if entries[module.name] is not False:
                entry = mapping(entries[module.name], self.name, module.name)
                require_known(entry, _DEFAULTS, dialect=self.name, module=module.name)
                if (mode := entry.get("mode", "affine")) != "affine":
                    raise PlanError(f"{self.name} asks for mode '{shown(mode)}' for {module.name}, and only affine is a format: change the mode.")
                asked = (entry.get("bits"), entry.get("group_size"))
                found[tensor] = Reader(self.name, offered).named(*asked, symmetric=False, module=module.name)
        return found

    def _entry(self, tensor: str, form: str, modules: Modules) -> object:
        if form in FLOATS:
            return False
        asked = integer_scheme(tensor, form, dialect=self.name, modules=modules)
        if asked.bits not in _BITS or asked.group not in _GROUPS:
            raise inexpressible(self.name, tensor, form, "it has 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128")
        if asked.symmetric:
            raise inexpressible(self.name, tensor, form, "its integers are asymmetric")
        return {"group_size": asked.group, "bits": asked.bits, "mode": "affine"}
