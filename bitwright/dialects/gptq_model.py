"""GPTQModel's `dynamic` as a dialect.

Grammar: `dynamic_get` of gptqmodel 7.6: an ordered mapping of regular expressions, matched from the start of a module's name, the first that matches
deciding: `+:` gives it a mapping of `bits`, `group_size` (-1 for a row) and `sym`, `-:` skips it. The last entry skips all modules not named before,
which would get the tool's defaults. Embeddings are not quantized, and the head only where `lm_head=True` says so, which is not in `dynamic`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from bitwright.dialects.dialect import EMBEDDING, FLOATS, HEAD, Dialect, Modules, Offered, inexpressible, integer_scheme, module_of
from bitwright.dialects.entries import Reader, left_to_defaults, mapping, parsed, require_known, require_used
from bitwright.errors import PlanError, shown
from bitwright.spaces import Patterns

_KEYS = ("bits", "group_size", "sym")
_OUTSIDE = (EMBEDDING, HEAD)
_NO_BITS = 7


class GptqModel(Dialect):
    """GPTQModel's `dynamic` rules, in JSON."""

    name = "gptqmodel"

    def write(self, formats: Mapping[str, str], modules: Modules) -> str:
        """Return JSON from a regular expression for each module to its bits and group size; `-:` leaves a module as stored."""
        entries: dict[str, dict[str, Any]] = {}
        for tensor, form in formats.items():
            pattern = f"^{re.escape(module_of(modules, tensor, self.name).name)}$"
            if form in FLOATS:
                entries[f"-:{pattern}"] = {}
            else:
                entries[f"+:{pattern}"] = self._entry(tensor, form, modules)
        return json.dumps({**entries, "-:.*": {}}, indent=2) + "\n"

    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:
        """Parse JSON from regular expressions to bits and group size."""
        entries, found, patterns = parsed(text, self.name), {}, Patterns(self.name, PlanError)
        matched = {key: {module.name for module in modules.values() if patterns.begins(_expression(key), module.name)} for key in entries}
        require_used(entries, {key for key in entries if matched[key]}, self.name)
        for tensor, module in modules.items():
            pattern = next((key for key in entries if module.name in matched[key]), "")
            if pattern.startswith("-:") or (not pattern and module.role in _OUTSIDE):
                continue
            if not pattern:
                raise left_to_defaults(self.name, module.name, 'end the mapping with "-:.*": {}')
            if module.role in _OUTSIDE:
                raise PlanError(
                    f"{self.name} quantizes no embeddings, and no head by `dynamic` alone; '{shown(pattern)}' matches {module.name}: take it out."
                )
            entry = mapping(entries[pattern], self.name, pattern)
            require_known(entry, _KEYS, dialect=self.name, module=module.name)
            asked = (entry.get("bits"), entry.get("group_size"))
            found[tensor] = Reader(self.name, offered).named(*asked, symmetric=entry.get("sym"), module=module.name)
        return found

    def _entry(self, tensor: str, form: str, modules: Modules) -> dict[str, Any]:
        asked = integer_scheme(tensor, form, dialect=self.name, modules=modules)
        if modules[tensor].role in _OUTSIDE:
            raise inexpressible(self.name, tensor, form, "it quantizes no embeddings, and a head only by an option outside `dynamic`")
        if asked.bits == _NO_BITS:
            raise inexpressible(self.name, tensor, form, "it has 2, 3, 4, 5, 6 or 8 bits")
        return {"bits": asked.bits, "group_size": asked.group or -1, "sym": asked.symmetric}


def _expression(key: str) -> str:
    return key[2:] if key[:2] in ("+:", "-:") else key
