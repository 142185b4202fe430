"""ModelOpt's quantization config (for `mtq.quantize`) as a dialect.

Grammar: `modelopt.torch.quantization.config` of nvidia-modelopt 0.47: `quant_cfg`, a list of entries in whose order the later override the earlier: a
wildcard over the names of quantizers (`quantizer_name`), and `cfg` (`num_bits`; `block_sizes` of axis -1, or `axis` 0 for a scale to each row) or
`enable`. Weights of a module are quantized by its `weight_quantizer`. The older mapping of wildcard → attributes is read too. Integers
are symmetric, in a range that its calibrator chooses. The text is YAML for its `load_config`: JSON, except that axes are numbers.
"""

import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import translate
from typing import Any

from bitwright.dialects.dialect import FLOATS, Dialect, Modules, Offered, inexpressible, integer_scheme, module_of
from bitwright.dialects.entries import Reader, left_to_defaults, mapping, parsed, require_known, require_used
from bitwright.errors import PlanError, shown
from bitwright.spaces import Patterns

_STAYS = {"quantizer_name": "*", "enable": False}
_OTHERS = ("input_quantizer", "output_quantizer")
_QUANTIZER, _LAST = "weight_quantizer", "-1"
_ATTRIBUTES = ("num_bits", "axis", "block_sizes", "enable")
_ROW = 0


class ModelOpt(Dialect):
    """ModelOpt's `quant_cfg`, in JSON."""

    name = "modelopt"

    def write(self, formats: Mapping[str, str], modules: Modules) -> str:
        """Return JSON that turns all quantizers off, then on for each planned module with its bits and block size."""
        entries: list[dict[str, Any]] = [dict(_STAYS)]
        for tensor, form in formats.items():
            module = module_of(modules, tensor, self.name)
            if form not in FLOATS:
                entries.append({"quantizer_name": f"{module.name}.{_QUANTIZER}", "cfg": self._attributes(tensor, form, modules)})
        text = json.dumps({"quant_cfg": entries, "algorithm": "max"}, indent=2)
        return text.replace(f'"{_LAST}":', f"{_LAST}:") + "\n"

    def read(self, text: str, modules: Modules, offered: Offered) -> dict[str, str]:
        """Parse a list of quantizer settings, of which the last that matches a module holds."""
        config = parsed(re.sub(rf"([{{,]\s*){_LAST}\s*:", rf'\1"{_LAST}":', text), self.name)
        require_known(config, ("quant_cfg", "algorithm"), dialect=self.name, module="the model")
        standing = self._standing(list(self._entries(config.get("quant_cfg"))), modules)
        for tensor, module in modules.items():
            if "enable" not in standing[tensor, _QUANTIZER]:
                raise left_to_defaults(self.name, module.name, "begin with an entry that matches all and enables none")
            for kind in _OTHERS:
                if standing[tensor, kind].get("enable"):
                    raise PlanError(f"{self.name} enables {module.name}.{kind}, and formats here leave inputs and outputs alone: disable it.")
        reader, weights = Reader(self.name, offered), {tensor: standing[tensor, _QUANTIZER] for tensor in modules}
        return {tensor: self._format(attributes, modules[tensor].name, reader) for tensor, attributes in weights.items() if attributes["enable"]}

    def _standing(self, entries: list[tuple[str, dict[str, Any]]], modules: Modules) -> dict[tuple[str, str], dict[str, Any]]:
        """Resolve all entries to the attributes of each tensor's quantizers, by tensor and kind of quantizer.

        Raises:
            PlanError: an entry matches no tensor.
        """
        patterns, used = Patterns(self.name, PlanError), set()
        standing: dict[tuple[str, str], dict[str, Any]] = {(tensor, kind): {} for tensor in modules for kind in (_QUANTIZER, *_OTHERS)}
        for name, attributes in entries:
            expression = translate(name)
            for tensor, kind in standing:
                if patterns.begins(expression, f"{modules[tensor].name}.{kind}"):
                    standing[tensor, kind] |= attributes
                    used.add(name)
        require_used((name for name, _ in entries), used, self.name)
        return standing

    def _attributes(self, tensor: str, form: str, modules: Modules) -> dict[str, Any]:
        asked = integer_scheme(tensor, form, dialect=self.name, modules=modules)
        if not asked.symmetric:
            raise inexpressible(self.name, tensor, form, "its integers are symmetric")
        return {"num_bits": asked.bits, "block_sizes": {_LAST: asked.group}} if asked.group else {"num_bits": asked.bits, "axis": _ROW}

    def _entries(self, listed: object) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield wildcards and attributes in their order; a `cfg` enables by default, and replaces all earlier attributes."""
        if isinstance(listed, dict):
            listed = [{"quantizer_name": name, **self._as_entry(mapping(about, self.name, f"'{name}'"))} for name, about in listed.items()]
        if not isinstance(listed, list):
            raise PlanError(f"In {self.name} 'quant_cfg' must be a list of entries; this text has none: give the dictionary of `mtq.quantize`.")
        for part in listed:
            entry = mapping(part, self.name, "an entry of 'quant_cfg'")
            name = entry.get("quantizer_name")
            if not isinstance(name, str):
                raise PlanError(f"An entry of {self.name} must have a quantizer_name; one has none: name its quantizers.")
            require_known(entry, ("quantizer_name", "cfg", "enable"), dialect=self.name, module=name)
            cleared: dict[str, Any] = dict.fromkeys(_ATTRIBUTES) if entry.get("cfg") is not None else {}
            about = mapping(entry["cfg"], self.name, f"'cfg' of '{name}'") if cleared else {}
            enable = {"enable": entry["enable"]} if entry.get("enable") is not None else {"enable": True} if cleared else {}
            yield "*" if name == "default" else name, {**cleared, **about, **enable}

    def _as_entry(self, about: dict[str, Any]) -> dict[str, Any]:
        attributes = {name: value for name, value in about.items() if name != "enable"}
        return ({"cfg": attributes} if attributes else {}) | ({"enable": about["enable"]} if "enable" in about else {})

    def _format(self, attributes: dict[str, Any], module: str, reader: Reader) -> str:
        require_known(attributes, _ATTRIBUTES, dialect=self.name, module=module)
        group: object = -1
        if attributes.get("block_sizes") is not None:
            blocks = mapping(attributes["block_sizes"], self.name, f"'block_sizes' of {module}")
            require_known(
                {key: value for key, value in blocks.items() if (key, value) != ("type", "static")}, (_LAST,), dialect=self.name, module=module
            )
            group = blocks.get(_LAST)
        elif attributes.get("axis") != _ROW:
            raise PlanError(
                f"{self.name} asks for axis={shown(attributes.get('axis'))} for {module}, and formats here have a scale to each row: set it to 0."
            )
        return reader.named(attributes.get("num_bits"), group, symmetric=True, module=module)
