"""The compressed-tensors layout: packed integers, as llm-compressor writes them and transformers and vLLM load them.

One config group for each format that is used, and in it the layers by name. Experts lie apart on disk and in one parameter in transformers 5, which
finds their group by looking for a pattern with `experts` in it (`get_experts_scheme`): so they are named by patterns.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitwright.compress.codec import Codec
from bitwright.compress.layout import Described, Layout
from bitwright.compress.packed_integers import Layer, PackedCodec, layer_bytes, layer_tensors
from bitwright.compress.source import Bytes
from bitwright.errors import ModelError
from bitwright.spaces import PACKED_FORMATS, Format, PackedFormat

METHOD, _FORMAT = "compressed-tensors", "pack-quantized"
_EXPERT = re.compile(r"(.*)\.experts\.\d+\..*")
_PATTERN = "re:"
_TYPES: dict[str, tuple[str, type[np.generic]]] = {
    "weight_packed": ("I32", np.int32),
    "weight_scale": ("BF16", np.uint16),
    "weight_shape": ("I64", np.int64),
    "weight_zero_point": ("I32", np.int32),
}


@dataclass(frozen=True)
class CompressedTensors(Layout):
    """`PackedFormat` in a checkpoint.

    Experts come out of transformers 5.23 in the type of their scales, whatever the rest of the model is loaded in: so a model of packed experts asks
    to be loaded in that type.
    """

    codec: Codec = field(default_factory=PackedCodec)

    def described(self, form: Format, shape: tuple[int, int]) -> Mapping[str, Described]:
        """See `Layout.described`."""
        return _described(_packed_format(form), shape)

    def arrays(self, packed: Bytes, form: Format, shape: tuple[int, int]) -> Mapping[str, Bytes]:
        """See `Layout.arrays`."""
        layer = layer_tensors(packed, _packed_format(form), shape)
        return {name: np.ascontiguousarray(values).reshape(-1).view(np.uint8) for name, values in layer.items()}

    def packed(self, arrays: Mapping[str, Bytes], form: Format, shape: tuple[int, int]) -> Bytes:
        """See `Layout.packed`."""
        return layer_bytes(packed_tensors(arrays, _packed_format(form), shape), _packed_format(form), shape)

    def settings(self, layers: Mapping[str, Format], others: tuple[str, ...]) -> dict[str, Any]:
        """See `Layout.settings`."""
        targets: dict[str, dict[str, None]] = {}
        for layer, form in layers.items():
            targets.setdefault(form.name, {})[_target(layer)] = None
        forms = {form.name: _packed_format(form) for form in layers.values()}
        groups = {f"group_{i}": {"targets": list(names), **scheme(forms[name])} for i, (name, names) in enumerate(targets.items())}
        return {
            "quant_method": METHOD,
            "format": _FORMAT,
            "quantization_status": "compressed",
            "config_groups": groups,
            "ignore": list(dict.fromkeys(_target(layer) for layer in others)),
        }

    def reader(self, settings: Mapping[str, Any]) -> Callable[[str], Format]:
        """See `Layout.reader`."""
        exact: dict[str, set[str]] = {}
        patterns: list[tuple[re.Pattern[str], str]] = []
        for group in settings.get("config_groups", {}).values():
            name = _named(group)
            for target in group["targets"]:
                if target.startswith(_PATTERN):
                    patterns.append((re.compile(target.removeprefix(_PATTERN)), name))
                else:
                    exact.setdefault(target, set()).add(name)

        def form_of(layer: str) -> Format:
            found = exact.get(layer, set()) | {name for pattern, name in patterns if pattern.match(layer)}
            if len(found) != 1:
                fault = f"has it in {' and '.join(sorted(found))}" if found else "has it in none"
                raise ModelError(
                    f"Every packed layer must be in exactly one config group of the checkpoint; {layer} is not, its config {fault}: build it again."
                )
            return _FORMS[found.pop()]

        return form_of

    def dtype(self, layers: Mapping[str, Format]) -> str:
        """See `Layout.dtype`."""
        return "bfloat16" if any(_EXPERT.fullmatch(layer) for layer in layers) else ""


_FORMS = {form.name: form for form in PACKED_FORMATS}


def _described(form: PackedFormat, shape: tuple[int, int]) -> dict[str, Described]:
    n_rows, n_columns = shape
    n_groups = form.n_groups(n_columns)
    shapes: dict[str, tuple[int, ...]] = {
        "weight_packed": (n_rows, form.n_words(n_columns)),
        "weight_scale": (n_rows, n_groups),
        "weight_shape": (2,),
    }
    if form.zero_points:
        shapes["weight_zero_point"] = (form.n_words(n_rows), n_groups)
    return {name: (_TYPES[name][0], size) for name, size in shapes.items()}


def _packed_format(form: Format) -> PackedFormat:
    if not isinstance(form, PackedFormat):
        raise ValueError(f"{form.name} is no format of packed integers")
    return form


def _target(layer: str) -> str:
    """The layer's name, or for an expert a pattern for all experts of its block."""
    block = _EXPERT.fullmatch(layer)
    return rf"{_PATTERN}{re.escape(block[1])}\.experts\.\d+\..*" if block else layer


def packed_tensors(arrays: Mapping[str, Bytes], form: PackedFormat, shape: tuple[int, int]) -> Layer:
    """The tensors of a layer, of their bytes."""
    return {name: arrays[name].view(_TYPES[name][1]).reshape(size) for name, (_, size) in _described(form, shape).items()}


def scheme(form: PackedFormat) -> dict[str, Any]:
    """What a config group says of a format, without the layers."""
    size: dict[str, Any] = {"strategy": "group", "group_size": form.group} if form.group else {"strategy": "channel", "group_size": None}
    weights = {"num_bits": form.bits, "type": "int", "symmetric": not form.zero_points, **size}
    return {"weights": weights, "input_activations": None, "output_activations": None, "format": _FORMAT}


def _named(group: Mapping[str, Any]) -> str:
    """The format of a config group.

    Raises:
        ModelError: it is none that is written here.
    """
    given = {key: value for key, value in group.items() if key != "targets"}
    for form in PACKED_FORMATS:
        if isinstance(form, PackedFormat) and scheme(form) == given:
            return form.name
    raise ModelError(f"A config group must be one of the formats written by Bitwright; {given.get('weights')} is none: build the checkpoint again.")
