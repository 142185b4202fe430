"""The divergence around a choice, held to finite differences of the divergence itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model, applied
from bitwright.predictors import Expansion, gradient_products
from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from bitwright.predictors.sensitivity.gradients.losses import compute_reference
from tests.measuring import levels_of, random_tokens, space_of, uniform
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow

TOKENS = random_tokens(3, 8)


def log_probabilities(model: Model) -> torch.Tensor:
    with torch.inference_mode():
        return model.module(torch.from_numpy(TOKENS.ids), use_cache=False).logits.double().log_softmax(dim=-1)


def nats(model: Model, original: torch.Tensor) -> float:
    changed = log_probabilities(model)
    return float((original.exp() * (original - changed)).sum(dim=-1).mean())


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_slopes_are_those_of_the_divergence_at_the_choice(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    model: Model = request.getfixturevalue(name)
    space, levels = space_of(model, ("Q8_0", "Q5_0", "Q4_0")), levels_of(model, tmp_path / "levels")
    choice, coarse, fine = (uniform(space, form) for form in ("Q5_0", "Q4_0", "Q8_0"))
    choice[::2] = coarse[::2]
    original, step = log_probabilities(model), 0.02
    with opened(model, levels, space=space, tokens=TOKENS, store=tmp_path / "run.sqlite") as subject:
        slopes, curvatures = Expansion(subject, gradient_products(subject), compute_reference(subject))(choice)
    rows = np.arange(len(choice))
    assert not slopes[rows, choice].any()
    assert not curvatures[rows, choice].any()
    assert not slopes[~space.offered].any()
    tensors = [unit.tensors[0] for unit in space.units]
    standing = {t.name: levels.weights(t, space.formats[f]) for t, f in zip(tensors, choice, strict=True)}
    for unit in (0, 1, len(choice) - 1):
        for target in (coarse[unit], fine[unit]):
            goal = levels.weights(tensors[unit], space.formats[target])
            values = []
            for side in (-step, step):
                weights = standing | {tensors[unit].name: standing[tensors[unit].name] + side * (goal - standing[tensors[unit].name])}
                with applied(model, {key: lambda matrix=matrix: matrix for key, matrix in weights.items()}):
                    values.append(nats(model, original))
            slope = (values[1] - values[0]) / (2 * step)
            assert slopes[unit, target] == pytest.approx(slope, rel=0.05, abs=3e-5), (unit, target)


def test_curvatures_from_the_original_are_the_gradient_table(tied: Model, tmp_path: Path) -> None:
    space, levels = space_of(tied, ("BF16", "Q8_0", "Q4_0")), levels_of(tied, tmp_path / "levels")
    with opened(tied, levels, space=space, tokens=TOKENS, store=tmp_path / "run.sqlite") as subject:
        products = gradient_products(subject)
        slopes, curvatures = Expansion(subject, products, compute_reference(subject))(uniform(space, "BF16"))
    np.testing.assert_allclose(curvatures, np.where(space.offered, gradient_table(products), 0.0))
    assert np.abs(slopes).max() < 0.01 * curvatures.max()  # the original is where the divergence is least, up to rounding
