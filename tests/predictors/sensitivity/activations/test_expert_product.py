"""φ^α w^β ε^γ, from its definition."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model, PackedTensors, integer_codec
from bitwright.engines import NATIVE, model_as_held
from bitwright.objectives.text.routing import collect_routing
from bitwright.predictors.sensitivity.activations.expert_product import PUBLISHED, RELEASED, ExpertProduct
from bitwright.progress import Silent
from bitwright.spaces import Space, by_expert, discover
from bitwright.spaces.tie import joined
from tests.measuring import changed, random_tokens
from tests.predictors.sensitivity.activations.test_block_output import outputs
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow

TOKENS, MENU = random_tokens(6, 8), ("INT2_G32", "INT4_G32")


@pytest.fixture(scope="module")
def apart(mixtral: Model) -> Model:
    return model_as_held(mixtral, NATIVE)


def space_of_experts(model: Model) -> Space:
    return NATIVE.space(joined(discover(model.tensors), by_expert), menu=("F32", *MENU), fixed_bytes=0, n_weights=1)


def levels_of(model: Model, folder: Path) -> PackedTensors:
    return PackedTensors(folder, model.source, integer_codec(), {})


@pytest.mark.parametrize("product", [PUBLISHED, RELEASED, ExpertProduct(0.5, 0.0, 1.0)])
def test_it_is_the_product_of_its_factors(apart: Model, product: ExpertProduct, tmp_path: Path) -> None:
    space, levels = space_of_experts(apart), levels_of(apart, tmp_path / "levels")
    routing = collect_routing(apart, TOKENS, progress=Silent())
    with opened(apart, levels, space=space, tokens=TOKENS, store=tmp_path / "a") as subject:
        table = product(subject)
    stored, coarse = (next(f for f, form in enumerate(space.formats) if form.name == wanted) for wanted in ("F32", "INT2_G32"))
    ids = torch.from_numpy(TOKENS.ids)
    for u in [u for u, unit in enumerate(space.units) if unit.layer == 1]:
        unit, choice = space.units[u], np.full(len(space.units), stored)
        original = outputs(changed(apart, levels, space, choice), 1, ids)
        choice[u] = coarse
        error = float((outputs(changed(apart, levels, space, choice), 1, ids) - original).norm() / original.norm())
        if unit.expert < 0:
            expected = error**product.error
        else:
            row, layer = routing.row_of(1, unit.expert), routing.layer == 1
            chosen, weight = (values[row] / values[layer].sum() for values in (routing.n_chosen, routing.probability))
            expected = chosen**product.frequency * weight**product.weight * error**product.error
        np.testing.assert_allclose(table[u, coarse], expected, rtol=5e-3)
    assert (table[space.offered] >= 0).all()


def test_the_exponents_are_those_of_the_paper_and_of_its_code() -> None:
    assert ExpertProduct(frequency=1, weight=1, error=2) == PUBLISHED
    assert ExpertProduct(frequency=1, weight=1.5, error=1) == RELEASED
