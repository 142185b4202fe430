"""Tokens that are sent to an expert by force."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model, PackedTensors, Rerouting, integer_codec, load
from bitwright.compress.in_place.dropping import forced
from bitwright.engines import NATIVE, model_as_held
from bitwright.errors import ModelError
from bitwright.objectives import hook_routers
from bitwright.objectives.text.routing import collect_routing
from bitwright.predictors import MINIMUM_TOKENS, forced_table
from bitwright.predictors.sensitivity.measured.forced_routing import forced_costs
from bitwright.progress import Silent
from bitwright.spaces import Space, by_expert, discover
from bitwright.spaces.tie import joined
from tests.compress import tiny_models as tiny
from tests.measuring import random_tokens, weights_of
from tests.model_fixtures import saved
from tests.predictors.subjects import opened
from tests.sentences import sentence

TOKENS = random_tokens(4, 16)


@pytest.fixture(scope="module")
def held(tiny_mixtral: Path) -> Model:
    return model_as_held(load(str(tiny_mixtral)), NATIVE)


def space_of(model: Model) -> Space:
    units = joined(tuple(unit for unit in discover(model.tensors) if unit.expert >= 0), by_expert)
    return NATIVE.space(
        units,
        menu=("Q8_0", "INT3_G32", "INT2_G32") if "Q8_0" in [f.name for f in NATIVE.formats] else ("INT3_G32", "INT2_G32"),
        fixed_bytes=0,
        n_weights=1,
    )


def levels_in(folder: Path, model: Model) -> PackedTensors:
    return PackedTensors(folder / "levels", model.source, integer_codec(), {})


def test_the_last_of_the_chosen_makes_room_and_no_more_changes() -> None:
    logits = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    found = forced(logits, 4, n_at_once=2)
    before, after = logits.topk(2, dim=-1), found.topk(2, dim=-1)
    was_there = (before.indices == 4).any(dim=-1)
    assert ((after.indices == 4).any(dim=-1)).all()
    assert torch.equal(after.indices[:, 0][~was_there], before.indices[:, 0][~was_there])
    torch.testing.assert_close(after.values, before.values, atol=1.1e-3, rtol=0)
    others = [0, 1, 2, 3, 5]
    assert torch.equal(found[:, others], logits[:, others])
    assert torch.equal(found[was_there].topk(2, dim=-1).indices.sort().values, before.indices[was_there].sort().values)


def test_every_token_of_one_layer_is_sent_there_and_then_none(held: Model) -> None:
    chosen: list[torch.Tensor] = []
    with Rerouting(held) as rerouting:
        rerouting.forcing(1, 2)
        with hook_routers(held, lambda routed: chosen.append(routed.chosen)), torch.no_grad():
            held.module(torch.from_numpy(TOKENS.ids), use_cache=False)
        rerouting.without({})
        found = collect_routing(held, TOKENS, progress=Silent())
    assert not (chosen[0] == 2).any(dim=-1).all()
    assert (chosen[1] == 2).any(dim=-1).all()
    assert (found.to_array() == collect_routing(held, TOKENS, progress=Silent()).to_array()).all()


def test_a_cost_is_the_divergence_for_each_token_that_is_sent_there(held: Model, tmp_path: Path) -> None:
    space, before = space_of(held), weights_of(held)
    column = next(f for f, form in enumerate(space.formats) if form.name == "INT2_G32")
    with opened(held, levels_in(tmp_path, held), space=space, tokens=TOKENS, store=tmp_path / "a.sqlite") as subject:
        costs = forced_costs(subject, np.array([2, 5]))
        again = forced_costs(subject, np.array([5]))
        assert costs.shape == (2, len(space.formats))
        assert (np.isfinite(costs) == space.offered[[2, 5]]).all()
        np.testing.assert_array_equal(again[0], costs[1])  # which is kept

        def log_probabilities(changed: bool) -> torch.Tensor:
            with Rerouting(held) as rerouting, torch.no_grad():
                rerouting.forcing(0, 2)
                if changed:
                    for tensor in space.units[2].tensors:
                        piece = held.pieces[tensor.name][0]
                        piece.from_engine(
                            held.module.get_parameter(piece.parameter), torch.from_numpy(subject.levels.weights(tensor, space.formats[column]))
                        )
                logits = held.module(torch.from_numpy(TOKENS.ids), use_cache=False).logits.double()
            return logits.log_softmax(dim=-1)

        p, q = log_probabilities(changed=False), log_probabilities(changed=True)
        for name, weight in before.items():
            held.module.get_parameter(name).data.copy_(weight)
        assert costs[0, column] == pytest.approx(float((p.exp() * (p - q)).sum(dim=-1).mean()), rel=1e-2)


def test_only_rare_experts_are_measured_and_no_price_falls(held: Model, tmp_path: Path) -> None:
    space, routing = space_of(held), collect_routing(held, TOKENS, progress=Silent())
    n_chosen = np.full(8, 100)
    n_chosen[[1, 6]] = 3, 0
    seldom = replace(routing, n_chosen=n_chosen)
    table = np.where(space.offered, 1e-9, np.nan)
    table[6] = np.where(space.offered[6], 1e9, np.nan)
    with opened(held, levels_in(tmp_path, held), space=space, tokens=TOKENS, store=tmp_path / "a.sqlite") as subject:
        found = forced_table(table, subject, seldom)
        expected = MINIMUM_TOKENS / TOKENS.n_tokens * forced_costs(subject, np.array([1]))[0]
        assert forced_table(table, subject, replace(routing, n_chosen=np.full(8, 99))) == pytest.approx(table, nan_ok=True)
    np.testing.assert_allclose(found[1][space.offered[1]], expected[space.offered[1]])
    rest = [u for u in range(8) if u != 1]
    np.testing.assert_array_equal(found[rest], table[rest])


def test_routers_with_corrections_are_refused(tmp_path: Path) -> None:
    model = model_as_held(load(str(saved(tmp_path / "model", *tiny.FAMILIES["deepseek-v3"][:2]))), NATIVE)
    space = NATIVE.space(discover(model.tensors), menu=("INT4_ROW",), fixed_bytes=0, n_weights=1)
    with (
        opened(model, levels_in(tmp_path, model), space=space, tokens=TOKENS, store=tmp_path / "a.sqlite") as subject,
        pytest.raises(ModelError) as caught,
    ):
        forced_costs(subject, np.array([0]))
    sentence(caught.value, "correction", "floors")
