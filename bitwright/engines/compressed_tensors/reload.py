"""Load a packed checkpoint as its engine does, and compare every weight with what was written.

transformers 5.23 loads experts whose layers differ in bit width without any error and computes with garbage (relative error 1), and a checkpoint with
zero points not at all: only a reload tells. The default path is used, which keeps layers packed and unpacks them on the first forward pass.
"""

import importlib
import importlib.util
from pathlib import Path

import psutil
import torch
from transformers import AutoConfig, PreTrainedModel

from bitwright.compress import NO_CODE, Model, auto_class, quietly, weights_of
from bitwright.engines.checkpoint_source import CheckpointSource
from bitwright.engines.compressed_tensors.layout import packed_tensors, scheme
from bitwright.errors import BrokenPromiseError, LibraryError, ModelError
from bitwright.spaces import ByteFormat, PackedFormat

_PACKAGE = "compressed_tensors"
_LOADED_BYTES = 6  # for each weight: packed and unpacked at once, in float32 at worst


def require_package() -> None:
    """Refuse to go on without the package that unpacks these checkpoints.

    Raises:
        LibraryError: it is not installed.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise LibraryError(
            "Checkpoints of packed integers need the package compressed-tensors, in transformers as here; it is not installed: "
            "pip install 'bitwright[checkpoints]'."
        )


def load_packed(folder: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    """Load the module of a checkpoint of packed integers by plain `from_pretrained`, and unpack it.

    Raises:
        ModelError: it cannot be loaded.
        LibraryError: the package that unpacks it is missing.
    """
    require_package()
    with quietly(folder):
        # the kernels of grouped experts refuse odd widths in bfloat16
        loaded: PreTrainedModel = auto_class(AutoConfig.from_pretrained(folder, **NO_CODE)).from_pretrained(
            folder, dtype=dtype, experts_implementation="eager", **NO_CODE
        )
        loaded.train(mode=False)
        with torch.no_grad():
            loaded(torch.zeros((1, 1), dtype=torch.int64))  # the first pass unpacks
    return loaded


def loaded_types(module: PreTrainedModel, original: Model) -> dict[str, torch.dtype]:
    """Return the type in which `module` holds each weight of the original, by name; experts that are layers of their own there have that of the
    module.
    """
    found = weights_of(module)
    return {name: found[name].dtype if name in found else module.dtype for name in weights_of(original.module)}


def reload_in_transformers(folder: Path, written: CheckpointSource) -> None:
    """Compare every matrix that `from_pretrained` finds in `folder` with what was written; a model that does not fit into memory layer by layer.

    Raises:
        BrokenPromiseError: one differs, or nothing can be loaded.
    """
    if _LOADED_BYTES * sum(tensor.n_weights for tensor in written.tensors) > psutil.virtual_memory().available:
        unpack_layer_by_layer(folder, written)
        return
    try:
        module = load_packed(folder, "auto")
    except ModelError as error:
        raise BrokenPromiseError(
            f"What was written must load in transformers; it does not, and nothing was kept, please report this: {error}"
        ) from error
    parameters = weights_of(module)
    for tensor in written.tensors:
        for slot in written.checkpoint_entries[tensor.name]:
            alone = parameters.get(slot.name)  # an expert that is a layer of its own in the loaded module
            found = slot.piece.to_engine(parameters[slot.piece.parameter].detach()) if alone is None else alone.detach()
            expected = torch.from_numpy(written.weights_of(slot)).reshape(found.shape)
            if not torch.equal(found, expected.to(found.dtype)):
                raise BrokenPromiseError(
                    f"Every weight must load as it was written; {slot.name} loads with a relative error of {_error(found, expected):.2g} in "
                    "transformers, and nothing was kept: please report this."
                )


def unpack_layer_by_layer(folder: Path, written: CheckpointSource) -> None:  # noqa: ARG001
    """Compare every packed layer with what the compressed-tensors package unpacks, one at a time, for engines that are not at hand.

    Raises:
        BrokenPromiseError: one differs.
        LibraryError: the package is missing.
    """
    require_package()
    compressors = importlib.import_module(f"{_PACKAGE}.compressors").BaseCompressor
    schemes = importlib.import_module(f"{_PACKAGE}.quantization").QuantizationScheme
    for tensor in written.tensors:
        for slot in written.checkpoint_entries[tensor.name]:
            form = written.forms[slot.name]
            if not isinstance(form, PackedFormat | ByteFormat):
                continue
            layer = {name: torch.from_numpy(values) for name, values in packed_tensors(written.arrays(slot), form, slot.matrix).items()}
            layer["weight_scale"] = layer["weight_scale"].view(torch.bfloat16).float()
            if isinstance(form, ByteFormat):
                layer["weight"] = layer["weight"].view(torch.int8 if form.kind == "int" else torch.float8_e4m3fn)
            said = schemes.model_validate({"targets": [], **scheme(form)})
            found = compressors.get_value_from_registry(said.format).decompress(layer, said)["weight"]
            if not torch.equal(found[slot.piece.order() - slot.piece.start], torch.from_numpy(written.weights_of(slot))):
                raise BrokenPromiseError(f"Every layer must unpack as it was written; {slot.name} does not: nothing was kept, please report this.")


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())
