"""Checkpoints of compressed-tensors, as llm-compressor and others write them, decompressed by the package itself.

A layer has a `weight_scale`, and its codes in `weight_packed` or `weight`; its scheme is that of the group of `config_groups` whose `targets` name
it: by its name, by a pattern (`re:`), or by the class of its module.
"""

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor as Torch

from bitwright.compress.models.checkpoints.quantized.packed_weight import PackedWeight, Stored, part
from bitwright.compress.models.checkpoints.safetensors_file import DTYPES, StoredTensor
from bitwright.errors import LibraryError, ModelError, shown
from bitwright.spaces import Patterns

_PACKAGE, _PATTERN, _SCALE = "compressed_tensors", "re:", ".weight_scale"
_ROLES = ("weight_packed", "weight", "weight_scale", "weight_zero_point", "weight_global_scale", "weight_shape")
_WORD, _INTEGERS, _BYTES = 32, "pack-quantized", ("nvfp4-pack-quantized", "mxfp4-pack-quantized")
_KNOWN = (_INTEGERS, "int-quantized", "float-quantized", "naive-quantized", *_BYTES, "mxfp8-quantized")


def compressed_tensors_weights(settings: Mapping[str, Any], stored: Stored, dtype: str) -> Iterable[PackedWeight]:
    """Yield the weights of a compressed-tensors checkpoint.

    Raises:
        LibraryError: the package is not installed.
        ModelError: its configuration is invalid, it is sparse or rotated too, or the tensors of a layer do not fit each other.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise LibraryError(
            "A model that is quantized with compressed-tensors needs that package; it is not installed: pip install 'bitwright[checkpoints]'."
        )
    sparse = settings.get("sparsity_config") or {}
    if settings.get("transform_config") or (isinstance(sparse, dict) and sparse.get("format", "dense") != "dense"):
        raise ModelError(
            "A model that is quantized with compressed-tensors must be neither sparse nor rotated (sparsity_config, transform_config); this one is: "
            "give the model that it was made from."
        )
    schemes, patterns = _schemes(settings), Patterns("A checkpoint's config_groups", ModelError)
    for name in stored:
        if name.endswith(_SCALE):
            layer = name.removesuffix(_SCALE)
            yield _weight(layer, stored, _scheme_of(layer, schemes, patterns), dtype)


def _schemes(settings: Mapping[str, Any]) -> list[Any]:
    """Return the `QuantizationScheme` of each group, each with its format."""
    scheme = importlib.import_module(f"{_PACKAGE}.quantization").QuantizationScheme
    try:
        groups = [dict(group) for group in settings["config_groups"].values()]
        made = [scheme.model_validate({**group, "format": group.get("format") or settings.get("format")}) for group in groups]
        wrong = [str(one.format) for one in made if one.format is None or one.format not in _KNOWN or one.weights is None]
        if wrong:
            raise ValueError(f"its format is {wrong[0]}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"The config_groups of compressed-tensors must say how weights are quantized; those of this model do not ({shown(error, 200)}): download "
            "the model again, or give the one that it was made from."
        ) from error
    return made


def _scheme_of(layer: str, schemes: list[Any], patterns: Patterns) -> Any:
    by_name = [scheme for scheme in schemes if any(_names(target, layer, patterns) for target in scheme.targets)]
    by_class = [scheme for scheme in schemes if any(_is_class(target) for target in scheme.targets)]
    if not by_name and len(by_class) != 1:
        raise ModelError(
            f"Every quantized layer of compressed-tensors must be in one of its config_groups; {layer} is in {len(by_class) or 'none'}: download the "
            "model again, or give the one that it was made from."
        )
    return (by_name or by_class)[0]


def _names(target: str, layer: str, patterns: Patterns) -> bool:
    if not target.startswith(_PATTERN):
        return target == layer
    return patterns.begins(target.removeprefix(_PATTERN), layer)


def _is_class(target: str) -> bool:
    return not target.startswith(_PATTERN) and "." not in target


def _weight(layer: str, stored: Stored, scheme: Any, dtype: str) -> PackedWeight:
    parts = {role: stored[f"{layer}.{role}"] for role in _ROLES if f"{layer}.{role}" in stored}
    bits, form = int(scheme.weights.num_bits), str(scheme.format)
    codes = part(stored, f"{layer}.{'weight_packed' if form == _INTEGERS or form in _BYTES else 'weight'}")
    if codes.dtype in DTYPES:
        raise ModelError(
            f"The weights of a model that is quantized with compressed-tensors must be codes; {layer} in {codes.path} is {codes.dtype}: save it "
            "compressed."
        )
    return PackedWeight(f"{layer}.weight", _shape(layer, stored, codes, bits, form), dtype, bits, parts, partial(_decoded, scheme=scheme))


def _shape(layer: str, stored: Stored, codes: StoredTensor, bits: int, form: str) -> tuple[int, ...]:
    if form in _BYTES:
        return *codes.shape[:-1], 2 * codes.shape[-1]
    if form != _INTEGERS:
        return codes.shape
    shape = tuple(map(int, part(stored, f"{layer}.weight_shape", (2,)).values().tolist()))
    part(stored, f"{layer}.weight_packed", (shape[0], -(-shape[1] * bits // _WORD)))
    return shape


def _decoded(parts: Mapping[str, Torch], *, scheme: Any) -> Torch:
    compressor = importlib.import_module(f"{_PACKAGE}.compressors").BaseCompressor.get_value_from_registry(scheme.format)
    made: Torch = compressor.decompress(dict(parts), scheme)["weight"]
    return made
