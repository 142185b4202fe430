"""Linear layers that transformers initialises while it loads a checkpoint in which they are packed, and then finds without a weight.

`from_pretrained` calls `_init_weights` of a model on modules that the checkpoint does not fill. A packed layer has no `weight` until the first
forward pass; the method of most families looks before it initialises, and that of some, such as Falcon and GPT-BigCode, does not. It is tried here
on the meta device, with the weights taken away.
"""

import copy
from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

_WEIGHT = ".weight"


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
