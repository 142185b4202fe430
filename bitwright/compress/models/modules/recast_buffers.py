"""Buffers that the forward pass of a model gives another type than they have, as CTRL does with its table of positions.

Once layers are packed, compressed-tensors keeps the buffers of every module too, and copies what is assigned to one into the tensor that was there,
whose type stays. Such a model computes in float32 alone, the type in which transformers makes its buffers. A forward pass over tensors without values
shows which.
"""

import copy
from contextlib import ExitStack, suppress

import torch
from torch import Tensor as Torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.modules.module import register_module_buffer_registration_hook
from transformers import PreTrainedModel

_FREQUENCIES = "inv_freq"  # of rotary embeddings, which stay in float32 in any case


@torch.no_grad()
def recast_buffers(module: PreTrainedModel) -> tuple[str, ...]:
    """Return the names, each within its own module, of the buffers of a module on the meta device that a pass in bfloat16 gives another type."""
    if all(_FREQUENCIES in name or not buffer.is_floating_point() for name, buffer in module.named_buffers()):
        return ()
    trial, found = copy.deepcopy(module), dict[str, None]()
    for parameter in trial.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)

    def note(inner: nn.Module, name: str, assigned: Torch | None) -> None:
        before = vars(inner)["_buffers"].get(name)
        if before is not None and assigned is not None and before.dtype != assigned.dtype:
            found[name] = None

    with ExitStack() as stack:
        stack.callback(register_module_buffer_registration_hook(note).remove)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(suppress(Exception))  # code that asks for a value: what it did before counts
        trial(torch.zeros((1, 1), dtype=torch.int64, device="meta"), use_cache=False)
    return tuple(found)
