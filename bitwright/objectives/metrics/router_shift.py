"""Router shift: share of the original's expert selections that the changed model does not make.

Source: the expert shift of EAC-MoE (ACL 2025, section 3), where it alone costs Mixtral as much perplexity as the quantized weights do. The share is
over all tokens, layers and the k selections of each. A dropped expert counts wherever the original selects it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model, router_parameters
from bitwright.errors import ObjectiveError
from bitwright.objectives.measurement import Estimate, standard_error
from bitwright.objectives.objective import ModelObjective, Preparation
from bitwright.objectives.text.routing import RouterCall, hook_routers
from bitwright.objectives.text.tokens import Tokens

_SEQUENCES_AT_ONCE = 8


@dataclass(frozen=True)
class RouterShift(Preparation):
    """Preparation of the router-shift objective: collects the original's expert selections on the text."""

    name = "router-shift"
    needs_routers = True

    def prepare(self, original: Model, tokens: Tokens) -> "ShiftFromOriginal":
        """Record which experts the original chooses on `tokens`.

        Raises:
            ObjectiveError: the model has no routers.
        """
        if not router_parameters(original):
            raise ObjectiveError(f"The objective {self.name} needs a mixture of experts; this model has no routers: name another objective.")
        return ShiftFromOriginal(chosen_experts(original, tokens), tokens)


@dataclass(frozen=True, eq=False)
class ShiftFromOriginal(ModelObjective):
    """Share of the selections `original` (see `chosen_experts`) that a model does not make on `tokens`."""

    original: NDArray[np.int64]
    tokens: Tokens
    name = "router-shift"
    unit = "of choices"
    reads_text = True

    def evaluate_model(self, model: Model) -> Estimate:
        """Return the share of the chosen experts that the original did not choose."""
        found = chosen_experts(model, self.tokens)
        unchanged = (self.original[..., :, None] == found[..., None, :]).any(axis=-1)  # (n_layers, n_sequences, length, k)
        shifted = 1.0 - unchanged.mean(axis=(0, 2, 3))
        return Estimate(float(shifted.mean()), standard_error(shifted))


def chosen_experts(model: Model, tokens: Tokens) -> NDArray[np.int64]:
    """Return the experts selected for each token `(n_layers, n_sequences, length, k)`; layers are those with a router, in order."""
    chosen: dict[int, list[Torch]] = {layer: [] for layer in sorted(router_parameters(model))}

    def record(routed: RouterCall) -> None:
        chosen[routed.layer].append(routed.chosen.cpu())

    with hook_routers(model, record), torch.inference_mode():
        for batch in tokens.batches(_SEQUENCES_AT_ONCE):
            model.module(torch.from_numpy(batch).to(model.device), use_cache=False)
    found = np.stack([torch.cat(of_layer).numpy() for of_layer in chosen.values()])
    return found.reshape(len(chosen), *tokens.ids.shape, -1)
