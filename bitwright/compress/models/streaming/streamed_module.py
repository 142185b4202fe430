"""Module of a checkpoint whose blocks have no weights in memory until they are run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights

from bitwright.compress.models.checkpoints.checkpoint import shards
from bitwright.compress.models.hub import quietly
from bitwright.compress.models.module_state import weights_of
from bitwright.compress.models.modules.module_view import rows_of
from bitwright.compress.models.opening import Checkpoint, FolderCheckpoint, made
from bitwright.compress.models.streaming.hidden_states import HiddenStates
from bitwright.compress.models.streaming.stations import stations_of
from bitwright.compress.models.streaming.streamed import Streamed
from bitwright.compress.models.streaming.weight_reader import WeightReader


def streamed_module(checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype, hidden: HiddenStates) -> tuple[PreTrainedModel, Streamed]:
    """Build the module of a checkpoint, with its computed buffers and the weights outside its stations, and the residence that reads the others.

    Raises:
        ModelError: its blocks cannot be found, or a weight cannot be read.
    """
    with quietly(checkpoint.path), no_init_weights(), init_empty_weights(include_buffers=False):
        module = made(checkpoint.config, dtype=dtype)
    module.tie_weights()
    stations = stations_of(module)
    streamed = frozenset[str]().union(*(station.parameters for station in stations))
    parameters = _with_storage(module, device, dtype)
    reader = WeightReader(rows_of(checkpoint), _files(checkpoint))
    torch.nn.Module.to(module, device=device)
    for name, weight in weights_of(module).items():
        if name in streamed:
            weight.untyped_storage().resize_(0)
        else:
            reader.fill(name, weight)
    return module, Streamed(module, stations, {name: parameters[name] for name in streamed}, reader, hidden)


def _with_storage(module: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> dict[str, nn.Parameter]:
    """Give a module on the meta device parameters whose memory is reserved and not touched; return them by name."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {
        name: nn.Parameter(torch.empty(parameter.shape, dtype=dtype, device=device), requires_grad=False)
        for name, parameter in module.named_parameters()
    }
    owners = [(inner, leaf, names[id(parameter)]) for inner in module.modules() for leaf, parameter in inner.named_parameters(recurse=False)]
    for inner, leaf, name in owners:
        inner.register_parameter(leaf, found[name])
    return found


def _files(checkpoint: Checkpoint) -> Sequence[Path]:
    return shards(checkpoint.path) if isinstance(checkpoint, FolderCheckpoint) else checkpoint.source.parts or (checkpoint.path,)
