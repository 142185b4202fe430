"""Methods that decide before they measure, against their papers' rules written out in numpy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model
from bitwright.predictors import scores_of
from bitwright.spaces import Choice, Space, by_layer, tied
from tests.measuring import levels_of, random_tokens, space_of
from tests.methods.golden import Given, between, bits_of, dense, every
from tests.model_fixtures import tied as tied_model
from tests.predictors.subjects import opened

__all__ = ["tied_model"]

SPACE = dense({0: (8, 16), 1: (24, 8), 2: (8, 40)})
LAYERS = dense(dict.fromkeys(range(10), (16,)))


def table(_: str) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.exp(rng.normal(size=(len(SPACE.units), 1))) * 4.0 ** -np.array([form.bits_per_weight for form in SPACE.formats])


@pytest.mark.parametrize(("method", "proxy"), [("hawq", "hawq"), ("higgs", "noise"), ("modelopt", "output-change")])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_an_integer_programme_is_the_least_sum_of_its_table_within_the_budget(method: str, proxy: str, share: float) -> None:
    given, budget, units = Given(SPACE, table), between(SPACE, share), np.arange(len(SPACE.units))
    fitting = [choice for choice in every(SPACE) if SPACE.total_bits(choice) <= budget]
    least = min(table(proxy)[units, choice].sum() for choice in fitting)
    found = given.answer(method, budget)
    assert table(proxy)[units, found].sum() == pytest.approx(least, rel=1e-12)
    assert given.asked == [proxy]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_llama_quantize_is_within_one_step_of_one_unit_of_the_least_sum(share: float) -> None:
    given, budget, units = Given(SPACE, table), between(SPACE, share), np.arange(len(SPACE.units))
    found, losses = given.answer("llama-quantize", budget), table("weighted")
    least = min(losses[units, choice].sum() for choice in every(SPACE) if SPACE.total_bits(choice) <= budget)
    assert SPACE.total_bits(found) <= budget
    one_step = max(np.ptp(losses[unit, row]) for unit, row in enumerate(SPACE.offered))
    assert least <= losses[units, found].sum() <= least + one_step
    assert given.asked == ["weighted"]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_obc_is_a_dynamic_programme_over_ten_thousand_parts_of_the_budget(share: float) -> None:
    given, budget = Given(SPACE, table), between(SPACE, share)
    room = budget - int(SPACE.total_bits(SPACE.smallest()))
    part = max(room // 10_000, 1)
    losses: dict[int, float] = {0: 0.0}
    for unit, row in enumerate(SPACE.offered):
        least, after = SPACE.size_bits[unit][row].min(), {}
        for spent, loss in losses.items():
            for f in np.flatnonzero(row):
                total = spent - (-(SPACE.size_bits[unit, f] - least) // part)
                if total <= min(room // part, 10_000):
                    after[total] = min(after.get(total, np.inf), loss + table("")[unit, f])
        losses = after
    found = given.answer("obc-dp", budget)
    assert table("")[np.arange(len(found)), found].sum() == pytest.approx(min(losses.values()), rel=1e-12)
    assert given.asked == ["surgeon"]


def scores_by_layer(_: str, space: Space) -> np.ndarray:
    return np.array([{0: 0.3, 1: 0.9, 2: 0.6}[unit.layer] for unit in space.units])


@pytest.mark.parametrize(("method", "proxy"), [("layerwise-lim", "lim"), ("layerwise-zd", "zd")])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_the_most_important_layers_are_in_the_higher_of_two_formats(method: str, proxy: str, share: float) -> None:
    given, budget = Given(SPACE, scores=scores_by_layer), between(SPACE, share)
    layer, three = np.array([unit.layer for unit in SPACE.units]), SPACE.formats.index(next(f for f in SPACE.formats if f.name == "INT3_ROW"))
    wanted: Choice = SPACE.smallest()
    for important in (1, 2, 0):  # by falling score
        raised = np.where(layer == important, three, wanted)
        if SPACE.total_bits(raised) > budget:
            break
        wanted = raised
    assert given.answer(method, budget).tolist() == wanted.tolist()
    assert given.asked == [proxy]


def test_the_z_score_distribution_of_a_layer_is_that_of_all_its_weights(tied_model: Model, tmp_path: Path) -> None:
    space = tied(space_of(tied_model, ("BF16", "Q8_0", "Q4_0")), by_layer).coarse
    levels = levels_of(tied_model, tmp_path / "levels")
    with opened(tied_model, levels, space=space, tokens=random_tokens(2, 4), store=tmp_path / "a.sqlite") as subject:
        found = scores_of("zd", subject)
    for unit, score in zip(space.units, found, strict=True):
        weights = np.concatenate([levels.source.read(tensor).reshape(-1) for tensor in unit.tensors]).astype(np.float64)
        assert score == pytest.approx(-np.mean((weights - weights.mean()) / weights.std() > 1), abs=2 / len(weights))


def test_layer_input_modification_is_minus_the_cosine_of_input_and_output(tied_model: Model, tmp_path: Path) -> None:
    tokens, space = random_tokens(3, 6), tied(space_of(tied_model, ("BF16", "Q8_0", "Q4_0")), by_layer).coarse
    with torch.inference_mode():
        hidden = [h.double().numpy() for h in tied_model.module(torch.from_numpy(tokens.ids), output_hidden_states=True).hidden_states]
    x, y = hidden[0], hidden[1]  # the first block's
    cosine = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
    with opened(tied_model, levels_of(tied_model, tmp_path / "levels"), space=space, tokens=tokens, store=tmp_path / "a.sqlite") as subject:
        found = scores_of("lim", subject)
    first = [unit.layer for unit in space.units].index(0)
    assert found[first] == pytest.approx(-cosine.mean(), rel=1e-4)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_edge_llm_takes_bits_from_layers_in_proportion_to_one_minus_their_scaled_score(share: float) -> None:
    scores = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0, 5.5, 3.5])
    given, budget = Given(LAYERS, scores=lambda *_: scores), between(LAYERS, share)
    found, units = given.answer("edge-llm", budget), np.arange(len(LAYERS.units))
    s = (scores - scores.min()) / (scores.max() - scores.min())
    largest, smallest = (LAYERS.size_bits[units, choice] for choice in (LAYERS.largest(), LAYERS.smallest()))
    scales = np.linspace(0, 50, 200_001)
    left = np.maximum(largest - np.outer(scales, 1 - s) * largest, smallest)  # (n_scales, n_units)
    wanted = left[np.flatnonzero(left.sum(axis=1) <= budget - LAYERS.fixed_bits)[0]]
    step = np.diff(np.sort(LAYERS.size_bits[0][LAYERS.offered[0]])).max()
    assert (np.abs(LAYERS.size_bits[units, found] - wanted) <= step).all()
    assert budget - step <= LAYERS.total_bits(found) <= budget
    assert (np.diff(np.array(bits_of(LAYERS, found))[np.argsort(scores)]) >= 0).all()
    assert given.asked == ["pruned-output"]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_cptquant_has_three_tiers_of_three_four_and_three_tenths_which_the_budget_widens(share: float) -> None:
    scores = np.random.default_rng(1).permutation(10).astype(float)
    given, budget = Given(LAYERS, scores=lambda *_: scores), between(LAYERS, share)
    middles, index = (np.arange(10) + 0.5) / 10, {form.name: f for f, form in enumerate(LAYERS.formats)}
    names = ("INT4_ROW", "INT3_ROW", "INT2_ROW") if share >= 0.5 else ("INT3_ROW", "INT2_ROW", "INT2_ROW")
    best = np.zeros(0)
    for factor in np.linspace(0, 40, 4_001):
        choice = np.empty(10, dtype=np.int64)
        tier = np.searchsorted(factor * np.array([0.3, 0.7]), middles, side="right")
        choice[np.argsort(-scores)] = [index[names[t]] for t in tier]
        if LAYERS.total_bits(choice) <= budget:
            best = choice
    assert LAYERS.total_bits(given.answer("cptquant", budget)) == LAYERS.total_bits(best)
    assert given.answer("cptquant", budget).tolist() == best.tolist()
    assert given.asked == ["canonical"] * 2
