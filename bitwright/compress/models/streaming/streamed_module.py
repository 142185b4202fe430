"""Module of a checkpoint whose blocks have no weights in memory until they are run."""

from collections.abc import Mapping, Sequence
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
from bitwright.compress.models.streaming.freed_memory import share_memory
from bitwright.compress.models.streaming.hidden_states import HiddenStates
from bitwright.compress.models.streaming.station_memory import StationMemory
from bitwright.compress.models.streaming.stations import stations_of
from bitwright.compress.models.streaming.streamed import Streamed
from bitwright.compress.models.streaming.weight_reader import WeightReader


def streamed_module(checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype, hidden: HiddenStates) -> tuple[PreTrainedModel, Streamed]:
    """Build the module of a checkpoint, with its computed buffers and the weights outside its stations, and the residence that reads the others.

    Raises:
        ModelError: its blocks cannot be found, or a weight cannot be read.
    """
    share_memory()
    with quietly(checkpoint.path), no_init_weights(), init_empty_weights(include_buffers=False):
        module = made(checkpoint.config, dtype=dtype)
    module.tie_weights()
    stations = stations_of(module)
    memory = StationMemory(stations, dict(module.named_parameters()), dtype=dtype, device=device)
    _take(module, memory.parameters, device, dtype)
    reader = WeightReader(rows_of(checkpoint), _files(checkpoint))
    torch.nn.Module.to(module, device=device)
    for name, weight in weights_of(module).items():
        if name not in memory.parameters:
            reader.fill(name, weight)
    return module, Streamed(module, stations, memory, reader, hidden)


def _take(module: PreTrainedModel, parameters: Mapping[str, nn.Parameter], device: torch.device, dtype: torch.dtype) -> None:
    """Give a module on the meta device `parameters` for those of their names, and others memory of their own."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    others = {
        name: nn.Parameter(torch.empty(parameter.shape, dtype=dtype, device=device), requires_grad=False)
        for name, parameter in module.named_parameters()
        if name not in parameters
    }
    owners = [(inner, leaf, names[id(parameter)]) for inner in module.modules() for leaf, parameter in inner.named_parameters(recurse=False)]
    for inner, leaf, name in owners:
        inner.register_parameter(leaf, parameters[name] if name in parameters else others[name])


def _files(checkpoint: Checkpoint) -> Sequence[Path]:
    return shards(checkpoint.path) if isinstance(checkpoint, FolderCheckpoint) else checkpoint.source.parts or (checkpoint.path,)
