"""A recipe of llm-compressor.

Grammar: `QuantizationScheme` and `match_name` of compressed-tensors 0.20: `config_groups`, each with `targets` (names of modules, or `re:` and a
regular expression matched from the start) and `weights`. A recipe is YAML, of which JSON is a part: JSON is written, and JSON is read.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from bitwright.dialects.dialect import FLOATS, Dialect, Names, integer, integer_name, mapping, module_of, parsed, require_asymmetric
from bitwright.errors import PlanError

_PATH = ("quant_stage", "quant_modifiers", "QuantizationModifier")


class LlmCompressor(Dialect):
    """See the module."""

    name = "llm-compressor"

    def write(self, formats: Mapping[str, str], names: Names) -> str:
        """See `Dialect.write`."""
        groups: dict[str, dict[str, Any]] = {}
        for tensor, form in formats.items():
            module = module_of(names, tensor, self.name)
            if form in FLOATS:
                continue
            asked = integer(tensor, form, self.name)
            strategy = {"strategy": "group", "group_size": asked.group} if asked.group else {"strategy": "channel"}
            weights = {"num_bits": asked.bits, "type": "int", "symmetric": False, **strategy}
            groups.setdefault(form.lower(), {"targets": [], "weights": weights})["targets"].append(module)
        recipe: dict[str, Any] = {"config_groups": groups, "ignore": []}
        for key in reversed(_PATH):
            recipe = {key: recipe}
        return json.dumps(recipe, indent=2) + "\n"

    def read(self, text: str, names: Names) -> dict[str, str]:
        """See `Dialect.read`."""
        recipe = parsed(text, self.name)
        for key in (*_PATH, "config_groups"):
            recipe = mapping(recipe.get(key), self.name, f"'{key}'")
        found: dict[str, str] = {}
        for group, described in recipe.items():
            scheme = mapping(described, self.name, group)
            form = self._format(mapping(scheme.get("weights"), self.name, f"{group}.weights"), group)
            for tensor in (tensor for tensor, module in names.items() if any(_matches(target, module) for target in scheme.get("targets", ()))):
                if found.setdefault(tensor, form) != form:
                    raise PlanError(f"Groups of a recipe must not overlap; {names[tensor]} is in two with different formats: name it in one.")
        return found

    def _format(self, weights: dict[str, Any], group: str) -> str:
        if weights.get("type", "int") != "int":
            raise PlanError(f"{self.name} asks for type {weights['type']} in {group}, and only int is a format here: change the type.")
        require_asymmetric(weights, "symmetric", dialect=self.name, module=group)
        return integer_name(weights.get("num_bits"), weights.get("group_size") or -1, self.name, group)


def _matches(target: str, module: str) -> bool:
    return re.match(target.removeprefix("re:"), module) is not None if target.startswith("re:") else target == module
