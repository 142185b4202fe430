"""Recipe of llm-compressor as a dialect.

Grammar: `QuantizationScheme` and `match_name` of compressed-tensors 0.20: `config_groups`, each with `targets` (names of modules, or `re:` and a
regular expression matched from the start) and `weights`; modules that `ignore` or no target matches stay unquantized. A recipe is YAML, of
which JSON is a subset: JSON is written and read. Activations are those of the formats that quantize inputs, 8 bits per token and the type of
the weights; others, names of classes (`Linear`) and presets are not read.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from bitwright.dialects.dialect import FLOATS, HEAD, Dialect, Modules, Offered, any_scheme, module_of
from bitwright.dialects.entries import Reader, mapping, parsed, require_known, require_used, texts
from bitwright.errors import PlanError, shown
from bitwright.spaces import Patterns

_PATH = ("quant_stage", "quant_modifiers", "QuantizationModifier")
_WEIGHTS = ("num_bits", "type", "symmetric", "strategy", "group_size")
_HEAD = "lm_head"
_STRATEGIES = ("group", "channel")
_TYPES = {"int": False, "float": True}


class LlmCompressor(Dialect):
    """Recipe of llm-compressor, in JSON."""

    name = "llm-compressor"

    def write(self, formats: Mapping[str, str], modules: Modules) -> str:
        """Return a recipe with a config group for each format; modules left as stored are under `ignore`."""
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
        """Parse the `config_groups` and `ignore` of a recipe."""
        recipe = parsed(text, self.name)
        for key in _PATH:
            recipe = mapping(recipe.get(key), self.name, f"'{key}'")
        require_known(recipe, ("config_groups", "ignore"), dialect=self.name, module=f"'{_PATH[-1]}'")
        patterns = Patterns(self.name, PlanError)
        ignored = self._ignored(texts(recipe.get("ignore", []), self.name, "'ignore'"), modules, patterns)
        found: dict[str, str] = {}
        for group, entry in mapping(recipe.get("config_groups"), self.name, "'config_groups'").items():
            scheme = mapping(entry, self.name, group)
            require_known(scheme, ("targets", "weights", "input_activations"), dialect=self.name, module=group)
            form = self._format(scheme, group, Reader(self.name, offered))
            for tensor in self._targeted(texts(scheme.get("targets", []), self.name, f"{group}.targets"), modules, patterns) - ignored:
                if found.setdefault(tensor, form) != form:
                    raise PlanError(f"Groups of a recipe must not overlap; {modules[tensor].name} is in two with different formats: name it in one.")
        return found

    def _targeted(self, targets: Iterable[str], modules: Modules, patterns: Patterns) -> set[str]:
        found: set[str] = set()
        for target in targets:
            matched = _matched(target, modules, patterns)
            if not matched:
                raise PlanError(
                    f"A target must match a module of the model; '{shown(target)}' matches none (classes are not read): name modules, or use re:."
                )
            found |= matched
        return found

    def _ignored(self, named: Iterable[str], modules: Modules, patterns: Patterns) -> set[str]:
        found: dict[str, set[str]] = {}
        for target in named:
            if target[:1].isupper():
                raise PlanError(
                    f"What is ignored must be named by module, not by class; '{shown(target)}' looks like a class: name modules, or use re:."
                )
            found[target] = _matched(target, modules, patterns)
        has_own_head = any(module.role == HEAD for module in modules.values())
        tied = set() if has_own_head else {_HEAD}  # the module is there, and its weight is the embedding's
        require_used(found, {target for target, matched in found.items() if matched} | tied, self.name)
        return set().union(*found.values())

    def _format(self, scheme: dict[str, Any], group: str, reader: Reader) -> str:
        weights = mapping(scheme.get("weights"), self.name, f"{group}.weights")
        require_known(weights, _WEIGHTS, dialect=self.name, module=group)
        if (kind := str(weights.get("type", "int"))) not in _TYPES:
            raise PlanError(f"{self.name} asks for type {shown(kind)} in {shown(group)}, and only int and float are formats here: change the type.")
        inputs = scheme.get("input_activations")
        if inputs is not None and inputs != _inputs(kind):
            raise PlanError(
                f"{self.name} asks for activations in {shown(group)} that no format here has: leave them out, or say 8 bits of type {kind}, "
                "symmetric, dynamic, strategy token."
            )
        if (strategy := weights.get("strategy")) not in _STRATEGIES:
            raise PlanError(
                f"{self.name} asks for strategy {shown(strategy)} in {shown(group)}, and formats here have group or channel: write one of the two."
            )
        size = weights.get("group_size") if strategy == "group" else -1
        options = {"symmetric": weights.get("symmetric", True), "floats": _TYPES[kind], "inputs": inputs is not None}
        return reader.named(weights.get("num_bits"), size, module=group, **options)


def _matched(target: str, modules: Modules, patterns: Patterns) -> set[str]:
    """Return the tensors of the modules that a target names or that match its expression from the start."""
    if target.startswith("re:"):
        return {tensor for tensor, module in modules.items() if patterns.begins(target.removeprefix("re:"), module.name)}
    return {tensor for tensor, module in modules.items() if module.name == target}


def _inputs(kind: object) -> dict[str, Any]:
    """Return the `input_activations` entry of a group with quantized inputs."""
    return {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "token", "dynamic": True}
