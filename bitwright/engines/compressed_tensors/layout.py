"""Layout of compressed-tensors: packed integers and bytes, as llm-compressor writes them and transformers and vLLM load them.

One config group for each format that is used, and in it the layers by name. Experts lie apart on disk and in one parameter in transformers 5, which
finds their group by looking for a pattern with `experts` in it (`get_experts_scheme`): so they are named by patterns.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitwright.compress import Bytes, Codec, Layer, layer_bytes, layer_tensors, packed_codec
from bitwright.engines.layout import Described, Layout
from bitwright.errors import ModelError, shown
from bitwright.spaces import ByteFormat, Format, PackedFormat, Patterns

METHOD, _MIXED = "compressed-tensors", "mixed-precision"
_PACKED, _BYTES = "pack-quantized", {"int": "int-quantized", "float": "float-quantized"}
_EXPERT = re.compile(r"(.*)\.experts\.\d+\..*")
_PATTERN = "re:"
_TYPES = {"weight_packed": "I32", "weight_scale": "BF16", "weight_shape": "I64", "weight_zero_point": "I32"}
_BYTE_TYPES = {"int": "I8", "float": "F8_E4M3"}
_WORDS: dict[str, type[np.generic]] = {"I32": np.int32, "BF16": np.uint16, "I64": np.int64, "I8": np.uint8, "F8_E4M3": np.uint8}
#: the formats of packed layers
LayerFormat = PackedFormat | ByteFormat


@dataclass(frozen=True)
class CompressedTensors(Layout):
    """`PackedFormat` and `ByteFormat` in a checkpoint; `formats` are those of the target.

    Experts come out of transformers 5.23 in the type of their scales, whatever the rest of the model is loaded in: so a model of packed experts asks
    to be loaded in that type.
    """

    formats: tuple[Format, ...]
    codec: Codec = field(default_factory=packed_codec)

    def described(self, form: Format, shape: tuple[int, int]) -> Mapping[str, Described]:
        """Return the types and shapes of a layer's tensors: weights, scales and zero points."""
        return _described(_packed_format(form), shape)

    def arrays(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Mapping[str, Bytes]:
        """Split packed rows `(n_bytes,)` into the tensors of a layer."""
        layer = layer_tensors(packed, _packed_format(form), shape)
        return {name: np.ascontiguousarray(values).reshape(-1).view(np.uint8) for name, values in layer.items()}

    def packed(self, arrays: Mapping[str, Bytes], form: Format, shape: tuple[int, int]) -> Bytes:
        """Join the tensors of a layer into packed rows `(n_bytes,)`."""
        return layer_bytes(packed_tensors(arrays, _packed_format(form), shape), _packed_format(form), shape)

    def settings(self, layers: Mapping[str, Format], others: tuple[str, ...]) -> dict[str, Any]:
        """Return a `quantization_config` with one config group for each format, and `ignore` for layers kept as floats."""
        targets: dict[str, dict[str, None]] = {}
        for layer, form in layers.items():
            targets.setdefault(form.name, {})[_target(layer)] = None
        forms = {form.name: _packed_format(form) for form in layers.values()}
        containers = {str(scheme(form)["format"]) for form in forms.values()}
        groups = {f"group_{i}": {"targets": list(names), **scheme(forms[name])} for i, (name, names) in enumerate(targets.items())}
        return {
            "quant_method": METHOD,
            "format": containers.pop() if len(containers) == 1 else _MIXED,
            "quantization_status": "compressed",
            "config_groups": groups,
            "ignore": list(dict.fromkeys(_target(layer) for layer in others)),
        }

    def reader(self, settings: Mapping[str, Any]) -> Callable[[str], Format]:
        """Return a function from the name of a packed layer to the format of its config group."""
        forms = {form.name: form for form in self.formats if isinstance(form, PackedFormat | ByteFormat)}
        exact: dict[str, set[str]] = {}
        expressions: list[tuple[str, str]] = []
        patterns = Patterns("A checkpoint's config_groups", ModelError)
        for group in _groups(settings):
            name = _named(group, forms)
            for target in group["targets"]:
                if target.startswith(_PATTERN):
                    expressions.append((target.removeprefix(_PATTERN), name))
                else:
                    exact.setdefault(target, set()).add(name)

        def form_of(layer: str) -> Format:
            found = exact.get(layer, set()) | {name for expression, name in expressions if patterns.begins(expression, layer)}
            if len(found) != 1:
                fault = f"has it in {' and '.join(sorted(found))}" if found else "has it in none"
                raise ModelError(
                    f"Every packed layer must be in exactly one config group of the checkpoint; {layer} is not, its config {fault}: build it again."
                )
            return forms[found.pop()]

        return form_of

    def dtype(self, layers: Mapping[str, Format]) -> str:
        """Return bfloat16 for a checkpoint with packed experts, empty otherwise."""
        return "bfloat16" if any(_EXPERT.fullmatch(layer) for layer in layers) else ""


def _described(form: LayerFormat, shape: tuple[int, int]) -> dict[str, Described]:
    n_rows, n_columns = shape
    if isinstance(form, ByteFormat):
        return {"weight": (_BYTE_TYPES[form.kind], shape), "weight_scale": ("BF16", (n_rows, 1))}
    n_groups = form.n_groups(n_columns)
    shapes: dict[str, tuple[int, ...]] = {
        "weight_packed": (n_rows, form.n_words(n_columns)),
        "weight_scale": (n_rows, n_groups),
        "weight_shape": (2,),
    }
    if form.zero_points:
        shapes["weight_zero_point"] = (form.n_words(n_rows), n_groups)
    return {name: (_TYPES[name], size) for name, size in shapes.items()}


def _groups(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the config groups of a checkpoint, each as its targets and its settings of weights.

    Raises:
        ModelError: they are something else.
    """
    groups = settings.get("config_groups", {})
    listed = list(groups.values()) if isinstance(groups, dict) else [groups]
    for group in listed:
        if not isinstance(group, dict) or not isinstance(group.get("weights"), dict) or not _are_texts(group.get("targets")):
            raise ModelError(f"The config_groups of a checkpoint must have targets and weights; one is '{shown(group)}': build it again.")
    return listed


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _packed_format(form: Format) -> LayerFormat:
    if not isinstance(form, PackedFormat | ByteFormat):
        raise ValueError(f"{form.name} is no format of packed layers")
    return form


def _target(layer: str) -> str:
    """Return the layer's name; for an expert a pattern for all experts of its block."""
    block = _EXPERT.fullmatch(layer)
    return rf"{_PATTERN}{re.escape(block[1])}\.experts\.\d+\..*" if block else layer


def packed_tensors(arrays: Mapping[str, Bytes], form: LayerFormat, shape: tuple[int, int]) -> Layer:
    """Return the tensors of a layer from their bytes."""
    return {name: arrays[name].view(_WORDS[dtype]).reshape(size) for name, (dtype, size) in _described(form, shape).items()}


def scheme(form: LayerFormat) -> dict[str, Any]:
    """Return the config group of a format, without its layers."""
    if isinstance(form, ByteFormat):
        kind = {"num_bits": 8, "type": form.kind, "symmetric": True}
        inputs = {**kind, "strategy": "token", "dynamic": True} if form.input_steps else None
        weights = {**kind, "strategy": "channel", "group_size": None}
        return {"weights": weights, "input_activations": inputs, "output_activations": None, "format": _BYTES[form.kind]}
    size: dict[str, Any] = {"strategy": "group", "group_size": form.group} if form.group else {"strategy": "channel", "group_size": None}
    weights = {"num_bits": form.bits, "type": "int", "symmetric": not form.zero_points, **size}
    return {"weights": weights, "input_activations": None, "output_activations": None, "format": _PACKED}


def _named(group: Mapping[str, Any], forms: Mapping[str, LayerFormat]) -> str:
    """Return the format of a config group.

    Raises:
        ModelError: it is none that is written here.
    """
    given = {key: value for key, value in group.items() if key != "targets"}
    for name, form in forms.items():
        if scheme(form) == given:
            return name
    raise ModelError(f"A config group must be one of the formats written by Bitwright; {shown(given.get('weights'))} is none: build it again.")
