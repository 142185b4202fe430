"""Recipe of llm-compressor as a dialect.

Grammar: `QuantizationScheme` and `match_name` of compressed-tensors 0.20: `config_groups`, each with `targets` (names of modules, or `re:` and a
regular expression matched from the start) and `weights`; modules that `ignore` or no target matches stay unquantized. A recipe is YAML, of
which JSON is a subset: JSON is written and read. Activations are those of the formats that quantize inputs, 8 bits per token and the type of
the weights; others, names of classes (`Linear`) and presets are not read.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from bitwright.dialects.dialect import FLOATS, Dialect, Modules, Offered, any_scheme, module_of
from bitwright.dialects.entries import Reader, mapping, parsed, require_known
from bitwright.errors import PlanError

_PATH = ("quant_stage", "quant_modifiers", "QuantizationModifier")
_WEIGHTS = ("num_bits", "type", "symmetric", "strategy", "group_size")
_STRATEGIES = ("group", "channel")
_TYPES = {"int": False, "float": True}


class LlmCompressor(Dialect):
    """See the module."""

    name = "llm-compressor"

    def write(self, formats: Mapping[str, str], modules: Modules) -> str:
        """See `Dialect.write`."""
        groups: dict[str, dict[str, Any]] = {}
        for tensor, form in formats.items():
            module = module_of(modules, tensor, self.name)
            if form in FLOATS:
                continue
            asked = any_scheme(tensor, form, dialect=self.name, modules=modules)
            strategy = {"strategy": "group", "group_size": asked.group} if asked.group else {"strategy": "channel"}
            kind = {"num_bits": asked.bits, "type": "float" if asked.floats else "int", "symmetric": asked.symmetric}
            inputs = {"input_activations": _inputs(kind["type"])} if asked.inputs else {}
            groups.setdefault(form.lower(), {"targets": [], "weights": {**kind, **strategy}, **inputs})["targets"].append(module.name)
        recipe: dict[str, Any] = {"config_groups": groups, "ignore": []}
        for key in reversed(_PATH):
            recipe = {key: recipe}
        return json.dumps(recipe, indent=2) + "\n"

    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:
        """See `Dialect.read`."""
        recipe = parsed(text, self.name)
        for key in _PATH:
            recipe = mapping(recipe.get(key), self.name, f"'{key}'")
        require_known(recipe, ("config_groups", "ignore"), dialect=self.name, module=f"'{_PATH[-1]}'")
        ignored = self._ignored(recipe.get("ignore", []), modules)
        found: dict[str, str] = {}
        for group, entry in mapping(recipe.get("config_groups"), self.name, "'config_groups'").items():
            scheme = mapping(entry, self.name, group)
            require_known(scheme, ("targets", "weights", "input_activations"), dialect=self.name, module=group)
            form = self._format(scheme, group, Reader(self.name, offered))
            for tensor in self._targeted(scheme.get("targets", []), modules) - ignored:
                if found.setdefault(tensor, form) != form:
                    raise PlanError(f"Groups of a recipe must not overlap; {modules[tensor].name} is in two with different formats: name it in one.")
        return found

    def _targeted(self, targets: Iterable[str], modules: Modules) -> set[str]:
        found: set[str] = set()
        for target in targets:
            matched = {tensor for tensor, module in modules.items() if self._matches(target, module.name)}
            if not matched:
                raise PlanError(
                    f"A target must match a module of the model; '{target}' matches none (classes are not read): name modules, or use re:."
                )
            found |= matched
        return found

    def _ignored(self, patterns: Iterable[str], modules: Modules) -> set[str]:
        for pattern in patterns:
            if pattern[:1].isupper():
                raise PlanError(f"Entries of ignore must be modules, not classes; '{pattern}' looks like a class: name modules, or use re:.")
        return {tensor for tensor, module in modules.items() if any(self._matches(pattern, module.name) for pattern in patterns)}

    def _format(self, scheme: dict[str, Any], group: str, reader: Reader) -> str:
        weights = mapping(scheme.get("weights"), self.name, f"{group}.weights")
        require_known(weights, _WEIGHTS, dialect=self.name, module=group)
        if (kind := weights.get("type", "int")) not in _TYPES:
            raise PlanError(f"{self.name} asks for type {kind} in {group}, and only int and float are supported: change the type.")
        inputs = scheme.get("input_activations")
        if inputs is not None and inputs != _inputs(kind):
            raise PlanError(
                f"{self.name} asks for activations in {group} that no format supports: leave them out, or write 8 bits of type {kind}, symmetric, "
                "dynamic, strategy token."
            )
        if (strategy := weights.get("strategy")) not in _STRATEGIES:
            raise PlanError(f"{self.name} asks for strategy {strategy} in {group}, and only group and channel are supported: write one of the two.")
        size = weights.get("group_size") if strategy == "group" else -1
        options = {"symmetric": weights.get("symmetric", True), "floats": _TYPES[kind], "inputs": inputs is not None}
        return reader.named(weights.get("num_bits"), size, module=group, **options)

    def _matches(self, target: str, module: str) -> bool:
        try:
            return re.match(target.removeprefix("re:"), module) is not None if target.startswith("re:") else target == module
        except re.error as error:
            raise PlanError(f"The text after re: must be a regular expression; '{target}' is not ({error}): correct it.") from error


def _inputs(kind: object) -> dict[str, Any]:
    """Return the `input_activations` entry of a group with quantized inputs."""
    return {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "token", "dynamic": True}
