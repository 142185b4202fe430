"""Names and layout of a module's weights in its checkpoint, by the conversion mapping of transformers.

transformers 5 loads many checkpoints under other names than its modules have, fuses the experts of a block into one 3-D parameter with gate stacked
on up, and for a few families chunks or transposes (`conversion_mapping.py`, `core_model_loading.py`). Two questions are asked of that mapping:
`origins` says which tensors of a folder become a parameter, `Outgoing` what a parameter is called when it is saved.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor as Torch
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Chunk,
    Concatenate,
    ConversionOps,
    MergeModulelist,
    PrefixChange,
    SplitModulelist,
    WeightConverter,
    WeightRenaming,
    apply_converters,
    apply_renamings,
    dot_natural_key,
    rename_source_key,
)
from transformers.quantizers.base import MODULES_TO_PATCH_FOR_QUANTIZATION
from transformers.utils.quantization_config import QuantizationMethod

from bitwright.compress.models.module_state import weights_of

_FUSED = {"gate_up_proj": ("gate_proj", "up_proj")}


@dataclass(frozen=True, eq=False)
class Origin:
    """Tensors of a folder that one or several parameters are made of.

    `parts` are their names on disk: one tuple of a single name where the parameter is stored as it is; for experts stored one by one a tuple for
    each matrix that is stacked on the others (gate, then up), in the order of the experts. `converter` makes anything else, None for those.
    """

    target: str
    parts: tuple[tuple[str, ...], ...]
    converter: WeightConverter | None

    @property
    def is_plain(self) -> bool:
        """Return whether the parameter is one tensor of the folder, as it is."""
        return self.converter is None and len(self.parts) == 1 and len(self.parts[0]) == 1

    def made(self, tensors: Mapping[str, Torch], module: PreTrainedModel) -> dict[str, Torch]:
        """Return the parameters by name, converted from the tensors on disk.

        Raises:
            ValueError: it has no converter.
        """
        if self.converter is None:
            raise ValueError(f"{self.target} is not converted")
        converting = copy.deepcopy(self.converter)
        for pattern, names in zip(converting.source_patterns, self.parts, strict=True):
            for name in names:
                converting.add_tensor(self.target, name, pattern, tensors[name])  # type: ignore[arg-type]  # a tensor stands for its future
        found = converting.convert(self.target, model=module, config=module.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in found.items()}


def origins(module: PreTrainedModel, names: Iterable[str]) -> dict[str, Origin]:
    """Return the origin of each parameter of `module` (on the meta device or not) among the tensors `names` of a folder; a tensor that becomes no
    parameter has the name that it would have.
    """
    mapping = get_model_conversion_mapping(module)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    meta, prefix = module.state_dict(), module.base_model_prefix
    found: dict[str, Origin] = {}
    gathered: dict[str, tuple[WeightConverter, dict[str, list[str]]]] = {}
    for name in sorted(names, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, prefix, meta)
        if target not in meta and name in meta:  # as the module itself calls it
            target, pattern = name, None
        if pattern is None:
            found[target] = Origin(target, ((name,),), None)
        else:
            gathered.setdefault(target, (by_pattern[pattern], {}))[1].setdefault(pattern, []).append(name)
    for target, (converter, of_pattern) in gathered.items():
        parts = tuple(tuple(of_pattern.get(pattern, ())) for pattern in converter.source_patterns)
        origin = Origin(target, parts, None if _is_by_expert(converter, MergeModulelist, Concatenate) and all(parts) else converter)
        found |= dict.fromkeys(_targets(target, converter), origin)
    return found


def _is_by_expert(converter: WeightConverter, stack: type[ConversionOps], fuse: type[Concatenate | Chunk]) -> bool:
    """Return whether a converter stacks experts or splits a stack, and does no more than `fuse` rows besides."""
    others = [op for op in converter.operations if not isinstance(op, stack)]
    return len(others) < len(converter.operations) and all(isinstance(op, fuse) and op.dim == 1 for op in others)


def _targets(target: str, converter: WeightConverter) -> list[str]:
    """Return the parameters that a converter makes beside `target`, its first."""
    first, *others = converter.target_patterns
    return [target, *(target.replace(first, other) for other in others)]


class Outgoing:
    """Names of a module's parameters as transformers saves them."""

    def __init__(self, module: PreTrainedModel) -> None:
        mapping = [entry for entry in get_model_conversion_mapping(module, add_legacy=False) if not isinstance(entry, PrefixChange)]
        reverse = [entry.reverse_transform() for entry in mapping[::-1]]
        self._renamings = [entry for entry in reverse if isinstance(entry, WeightRenaming)]
        self._converters = [entry for entry in reverse if isinstance(entry, WeightConverter)]
        self._by_pattern = {pattern: converter for converter in self._converters for pattern in converter.source_patterns}
        names = list(weights_of(module))
        self._own = {name for name, origin in origins(module, names).items() if origin.is_plain and origin.parts == ((name,),)}
        self._module = module

    def whole(self, parameter: str) -> str:
        """Return the name of a parameter that is saved as it is; its own where its family saves it in another layout."""
        renamed, pattern = apply_converters(parameter, self._converters)
        return parameter if pattern is not None else apply_renamings(renamed, self._renamings)

    def is_patched(self, parameter: str) -> bool:
        """Return whether transformers loads the stack of experts of a packed checkpoint as linear layers one by one."""
        owner = type(self._module.get_submodule(parameter.rpartition(".")[0])).__name__
        patched: Any = MODULES_TO_PATCH_FOR_QUANTIZATION.get(owner, {})
        return QuantizationMethod.COMPRESSED_TENSORS in patched.get("quantization_methods", ())

    def is_own(self, parameter: str) -> bool:
        """Return whether transformers also loads the parameter, as it is, under the module's own name."""
        return parameter in self._own

    def experts(self, parameter: str) -> tuple[str, ...]:
        """Return the names of the matrices of each expert in a stack, `*` in place of its index, in the order in which they are stacked by rows;
        none where its family saves the stack as one tensor.
        """
        if self.is_patched(parameter):
            owner, _, leaf = parameter.rpartition(".")
            return tuple(f"{owner}.*.{part}.weight" for part in _FUSED.get(leaf, (leaf,)))
        renamed, pattern = apply_converters(parameter, self._converters)
        if pattern is None:
            return ()
        converter = self._by_pattern[pattern]
        if not _is_by_expert(converter, SplitModulelist, Chunk):
            return ()
        first, *others = converter.target_patterns
        return (renamed, *(renamed.replace(first, other) for other in others))

    def of_expert(self, pattern: str, expert: int) -> str:
        """Return the name of an expert's matrix of the `pattern`, one of `experts`."""
        return apply_renamings(pattern.replace("*", str(expert)), self._renamings)
