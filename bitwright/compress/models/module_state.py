"""State of a transformers module that a checkpoint stores: parameters and persistent buffers, each once."""

from torch import Tensor as Torch
from torch import nn
from transformers import PreTrainedModel

from bitwright.compress.models.float_types import integer_type


def weights_of(module: nn.Module) -> dict[str, Torch]:
    """Return the state of `module` by name: its parameters, and its persistent buffers of floats or integers, such as the router corrections and the
    tables of experts of DeepSeek. What several modules share is named once.
    """
    kept = module.state_dict(keep_vars=True)
    buffers = {name: values for name, values in module.named_buffers() if name in kept and _is_stored(values)}
    return dict(module.named_parameters()) | buffers


def _is_stored(values: Torch) -> bool:
    return values.is_floating_point() or bool(integer_type(values.dtype))


def tied_weights(module: PreTrainedModel) -> dict[str, str]:
    """Return the parameters that the configuration ties to another, name → that one's name."""
    owners = {id(parameter): name for name, parameter in module.named_parameters()}
    everything = module.named_parameters(remove_duplicate=False)
    return {name: owners[id(parameter)] for name, parameter in everything if owners[id(parameter)] != name}
