"""Linear layers that transformers initialises while it loads a checkpoint in which they are packed, and then finds without a weight.

`from_pretrained` calls `_init_weights` of a model on modules that the checkpoint does not fill. A packed layer has no `weight` until the first
forward pass; the method of most families looks before it initialises, and that of some, such as Falcon and GPT-BigCode, does not. It is tried here
on the meta device, with the weights taken away. That of Youtu zeroes a row of an embedding that was loaded: the operations that write are
watched, so no weight has to be there.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor as Torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

_WEIGHT = ".weight"
_LOADED = "_is_hf_initialized"  # transformers' mark


@torch.no_grad()
def initialised_layers(module: PreTrainedModel, names: Iterable[str]) -> frozenset[str]:
    """Return those of `names`, weights of linear layers of a module on the meta device, without which the module cannot be initialised."""
    trial = copy.deepcopy(module)
    paths = {name.removesuffix(_WEIGHT): name for name in names}
    layers = {layer: paths[path] for path, layer in trial.named_modules() if path in paths and isinstance(layer, nn.Linear)}
    missed: dict[str, None] = {}
    for inner, model in _with_models(trial, trial):
        for layer in (inner, *inner.children()):
            if layer in layers and not _is_initialised(inner, model, without=layer):
                missed[layers[layer]] = None
    return frozenset(missed)


def initialised_sentence(names: tuple[str, ...]) -> str:
    """Return the sentence that says which layers are offered formats that keep a `weight` alone, and why."""
    return (
        f"{len(names)} layers are offered 8-bit formats and floats alone, first {names[0]}: transformers initialises them before it unpacks them, "
        "and packed integers have no weight until then."
    )


@torch.no_grad()
def overwritten(module: PreTrainedModel) -> tuple[str, ...]:
    """Return the names of parameters of a module on the meta device that its own initialisation writes to although they are marked as loaded."""
    trial = copy.deepcopy(module)
    for inner in trial.modules():
        vars(inner).pop(_LOADED, None)
    for tensor in (*trial.parameters(), *trial.buffers()):
        vars(tensor)[_LOADED] = True
    with torch.random.fork_rng(devices=[]), _Writes(dict(trial.named_parameters())) as writes:
        trial.initialize_weights()  # type: ignore[no-untyped-call]
    return tuple(writes.found)


class _Writes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes each parameter, by its storage, that an operation writes to, whole or in part."""

    def __init__(self, parameters: Mapping[str, Torch]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {_storage(parameter): name for name, parameter in parameters.items()}
        self.found = dict[str, None]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | (kwargs or {})
        for argument in func._schema.arguments:
            written = argument.alias_info is not None and argument.alias_info.is_write
            for taken in tree_leaves(given.get(argument.name)) if written else ():
                if isinstance(taken, Torch) and _storage(taken) in self._names:
                    self.found[self._names[_storage(taken)]] = None
        return func(*args, **(kwargs or {}))


def _storage(tensor: Torch) -> int:
    """Return what tensors have in common that share their storage, even one that has no memory."""
    return int(tensor.untyped_storage()._cdata)


def _is_initialised(inner: nn.Module, model: PreTrainedModel, *, without: nn.Module) -> bool:
    """Return whether `model` can initialise the module `inner` while the layer `without` has no weight."""
    weight = vars(without)["_parameters"].pop("weight")
    try:
        model._init_weights(inner)  # type: ignore[no-untyped-call]
    except AttributeError:
        return False
    finally:
        vars(without)["_parameters"]["weight"] = weight
    return True


def _with_models(inner: nn.Module, model: PreTrainedModel) -> list[tuple[nn.Module, PreTrainedModel]]:
    """List a module and all modules in it, each with the innermost model that it is in."""
    own = inner if isinstance(inner, PreTrainedModel) else model
    return [*(pair for child in inner.children() for pair in _with_models(child, own)), (inner, own)]
