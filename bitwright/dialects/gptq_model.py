"""GPTQModel's `dynamic`.

Grammar: `dynamic_get` of gptqmodel 7.6: an ordered mapping of regular expressions, matched from the start of a module's name, the first that matches
deciding: `+:` gives it a mapping of `bits`, `group_size` (-1 for a row) and `sym`, `-:` leaves it. The last entry here leaves all that is not named.
Embeddings are not quantized.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from bitwright.dialects.dialect import FLOATS, Dialect, Names, integer, integer_name, mapping, module_of, parsed, require_asymmetric, unsayable
from bitwright.errors import PlanError

_EMBEDDING = "token_embd.weight"


class GptqModel(Dialect):
    """See the module."""

    name = "gptqmodel"

    def write(self, formats: Mapping[str, str], names: Names) -> str:
        """See `Dialect.write`."""
        entries: dict[str, dict[str, Any]] = {}
        for tensor, form in formats.items():
            pattern = f"^{re.escape(module_of(names, tensor, self.name))}$"
            if form in FLOATS:
                entries[f"-:{pattern}"] = {}
                continue
            asked = integer(tensor, form, self.name)
            if tensor == _EMBEDDING:
                raise unsayable(self.name, tensor, form, "it quantizes no embeddings")
            entries[f"+:{pattern}"] = {"bits": asked.bits, "group_size": asked.group or -1, "sym": False}
        return json.dumps({**entries, "-:.*": {}}, indent=2) + "\n"

    def read(self, text: str, names: Names) -> dict[str, str]:
        """See `Dialect.read`."""
        entries, found = parsed(text, self.name), {}
        for tensor, module in names.items():
            pattern = next((pattern for pattern in entries if self._matches(pattern, module)), "-:")
            if not pattern.startswith("-:"):
                entry = mapping(entries[pattern], self.name, pattern)
                require_asymmetric(entry, "sym", dialect=self.name, module=module)
                found[tensor] = integer_name(entry.get("bits"), entry.get("group_size"), self.name, module)
        return found

    def _matches(self, pattern: str, module: str) -> bool:
        try:
            return re.match(pattern[2:] if pattern[:2] in ("+:", "-:") else pattern, module) is not None
        except re.error as error:
            raise PlanError(f"{self.name} keys must be regular expressions; '{pattern}' is not ({error}): correct it.") from error
