"""Linear layers that transformers initialises while it loads a checkpoint in which they are packed, and then finds without a weight.

`from_pretrained` calls `_init_weights` of a model on modules that the checkpoint does not fill. A packed layer has no `weight` until the first forward
pass; the method of most families looks before it initialises, and that of some, such as Falcon and GPT-BigCode, does not. It is tried here on the
meta device, with the weights taken away.
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
    layers = {path: layer for path, layer in trial.named_modules() if path in paths and isinstance(layer, nn.Linear)}
    taken = {layer: vars(layer)["_parameters"].pop("weight") for layer in layers.values()}
    missed: set[nn.Module] = set()
    for inner, model in _with_models(trial, trial):
        for around in ((inner, *inner.children()), tuple(inner.modules())):
            try:
                model._init_weights(inner)
                break
            except AttributeError:
                put_back = [layer for layer in around if layer in taken]
                for layer in put_back:
                    vars(layer)["_parameters"]["weight"] = taken.pop(layer)
                missed.update(put_back)
    return frozenset(paths[path] for path, layer in layers.items() if layer in missed)


def _with_models(inner: nn.Module, model: PreTrainedModel) -> list[tuple[nn.Module, PreTrainedModel]]:
    """List a module and all modules in it, each with the innermost model that it is in."""
    own = inner if isinstance(inner, PreTrainedModel) else model
    return [*(pair for child in inner.children() for pair in _with_models(child, own)), (inner, own)]
