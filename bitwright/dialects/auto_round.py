"""AutoRound's `layer_config`.

Grammar: `layer_config_resolver` of auto-round 0.16: module → a mapping of `bits`, `group_size` (-1 for a row), `sym`, `data_type`, ... Its asymmetric
integers have an integer zero point where `IntegerFormat` has a minimum, so bits and groups are the same and the codes are the tool's own; it refuses
asymmetric integers of 8 bits.
"""

import json
from collections.abc import Mapping
from typing import Any

from bitwright.dialects.dialect import (
    FLOATS,
    Dialect,
    Names,
    integer,
    integer_name,
    mapping,
    module_of,
    parsed,
    require_asymmetric,
    unsayable,
)

_STAYS = {"bits": 16, "act_bits": 16, "data_type": "float", "act_data_type": "float"}


class AutoRound(Dialect):
    """See the module."""

    name = "autoround"

    def write(self, formats: Mapping[str, str], names: Names) -> str:
        """See `Dialect.write`."""
        return json.dumps({module_of(names, tensor, self.name): self._entry(tensor, form) for tensor, form in formats.items()}, indent=2) + "\n"

    def read(self, text: str, names: Names) -> dict[str, str]:
        """See `Dialect.read`."""
        entries, found = parsed(text, self.name), {}
        for tensor, module in names.items():
            entry = mapping(entries.get(module, _STAYS), self.name, module)
            if entry.get("bits") != _STAYS["bits"]:
                require_asymmetric(entry, "sym", dialect=self.name, module=module)
                found[tensor] = integer_name(entry.get("bits"), entry.get("group_size"), self.name, module)
        return found

    def _entry(self, tensor: str, form: str) -> dict[str, Any]:
        if form in FLOATS:
            return dict(_STAYS)
        asked = integer(tensor, form, self.name)
        if asked.bits == 8:
            raise unsayable(self.name, tensor, form, "it has no asymmetric integers of 8 bits")
        return {"bits": asked.bits, "group_size": asked.group or -1, "sym": False, "data_type": "int"}
