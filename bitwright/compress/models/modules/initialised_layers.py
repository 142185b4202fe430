"""Linear layers that transformers initialises while it loads a checkpoint in which they are packed, and then finds without a weight.

`from_pretrained` calls `_init_weights` of a model on modules that the checkpoint does not fill. A packed layer has no `weight` until the first
forward pass; the method of most families looks before it initialises, and that of some, such as Falcon and GPT-BigCode, does not. It is tried here
on the meta device, with the weights taken away. That of Youtu zeroes a row of an embedding that was loaded, which is found on the loaded module.
"""

import copy
from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import nn
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


@torch.no_grad()
def overwritten(module: PreTrainedModel) -> tuple[str, ...]:
    """Return the names of weights of a loaded module that its own initialisation changes although they are marked as loaded. They are as before
    afterwards.

    Memory: a copy of the weights of a layer and of those right in it.
    """
    names, found = {id(weight): name for name, weight in module.named_parameters()}, dict[str, None]()
    marked = [*module.parameters(), *module.buffers()]
    for tensor in marked:
        vars(tensor)[_LOADED] = True
    with torch.random.fork_rng(devices=[]):
        for inner, model in _with_models(module, module):
            near = [weight for layer in (inner, *inner.children()) for weight in layer.parameters(recurse=False)]
            before = [weight.detach().clone() for weight in near]
            with suppress(AttributeError, NotImplementedError):
                model._init_weights(inner)  # type: ignore[no-untyped-call]
            for weight, was in zip(near, before, strict=True):
                if not torch.equal(weight, was):
                    weight.copy_(was)
                    found[names[id(weight)]] = None
    for tensor in marked:
        vars(tensor).pop(_LOADED, None)
    return tuple(found)


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
