"""The error of a layer's outputs without its smallest weights, against plain arithmetic on its inputs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model
from bitwright.predictors.sensitivity.activations.pruned_output import RATIOS, pruned_output_scores
from bitwright.spaces import by_layer
from bitwright.spaces import tied as tied_space
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened


def test_it_is_the_mean_squared_error_over_matrices_and_ratios(tied: Model, tmp_path: Path) -> None:
    model, tokens = tied, random_tokens(4, 8)
    levels, inputs = levels_of(model, tmp_path / "levels"), {}
    space = tied_space(space_of(model, ("BF16", "Q8_0", "Q4_0")), by_layer).coarse

    def hook(module: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        inputs[module] = given[0].detach().flatten(0, -2)

    hooks = [module.register_forward_pre_hook(hook) for module in model.module.modules() if isinstance(module, torch.nn.Linear)]
    with torch.inference_mode():
        model.module(torch.from_numpy(tokens.ids))
    for hook in hooks:
        hook.remove()
    with opened(model, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite") as subject:
        found = pruned_output_scores(subject)
    for unit, score in zip(space.units, found, strict=True):
        if unit.layer >= 0:
            errors = []
            for name, module in model.module.named_modules():
                if module in inputs and f"layers.{unit.layer}." in name:
                    weights, x = module.weight.detach().double().numpy(), inputs[module].double().numpy()
                    for ratio in RATIOS:
                        smallest = np.argsort(np.abs(weights), axis=None, kind="stable")[: int(ratio * weights.size)]
                        lost = np.zeros(weights.size)
                        lost[smallest] = weights.reshape(-1)[smallest]
                        errors.append(np.mean((x @ lost.reshape(weights.shape).T) ** 2))
            assert len(errors) == 7 * len(RATIOS)
            assert score == pytest.approx(np.mean(errors), rel=1e-3)
