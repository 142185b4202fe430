"""Published methods that take parts away, against reimplementations of a few lines."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bitwright.errors import UserError
from bitwright.methods import KeptModel, SeenModel, asked_structure, structure_method
from bitwright.methods.published_structures import STRUCTURE_METHODS, uniql_shares
from bitwright.predictors.sensitivity.activations.similarity import distances_between
from bitwright.spaces import Structure
from tests.sentences import sentence

_LAYERS = 8
_SCORES = np.random.default_rng(7).random((_LAYERS, 8))
_WHOLE = Structure((3,) * _LAYERS, (1536,) * _LAYERS)


def widths(n: int) -> list[int]:
    return list(range(n, n // 2 - 1, -256))


@pytest.fixture(scope="module")
def states() -> np.ndarray:
    """Hidden states before each block and behind the last `(n_blocks + 1, n_sequences, length, width)`."""
    rng = np.random.default_rng(5)
    return np.cumsum(rng.normal(size=(_LAYERS + 1, 4, 3, 6)) * rng.uniform(0.1, 1.0, (_LAYERS + 1, 1, 1, 1)), axis=0)


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return float(x @ y / math.sqrt((x @ x) * (y @ y)))


@pytest.fixture(scope="module")
def seen(states: np.ndarray) -> SeenModel:
    cosines = [[[cosine(states[i, s, t], states[i + 1, s, t]) for t in range(3)] for s in range(4)] for i in range(_LAYERS)]
    return SeenModel(np.array(cosines), distances_between(states[:, :, -1]), kept_model, _none, np.ones((_LAYERS, 2)), 0, _SCORES, 2)


def _none(structure: Structure, n_tokens: int) -> float:
    raise AssertionError("measured by cosines and by the original weights alone")


def kept_model(structure: Structure) -> KeptModel:
    """Return a model in which blocks miss each other: taking away two neighbours costs more than the sum of both."""
    gone = structure.gone
    lost = sum(0.01 * (1 + (5 * layer) % 7) for layer in gone) + sum(0.08 for layer in gone if layer + 1 in gone)
    return KeptModel(1 - lost, 2 + lost)


def gone(name: str, seen: SeenModel) -> list[tuple[int, ...]]:
    method = structure_method(name)
    assert method is not None
    return [structure.gone for structure in method.proposed(seen, _WHOLE, widths)]


def test_shortgpt_takes_the_blocks_of_least_influence(seen: SeenModel, states: np.ndarray) -> None:
    influence = [1 - np.mean([cosine(states[i, s, t], states[i + 1, s, t]) for s in range(4) for t in range(3)]) for i in range(_LAYERS)]
    for n, found in enumerate(gone("shortgpt", seen), start=1):
        assert found == tuple(sorted(sorted(range(_LAYERS), key=lambda i: influence[i])[:n]))


def test_deeper_layers_takes_the_blocks_between_the_nearest_states(seen: SeenModel, states: np.ndarray) -> None:
    for n, found in enumerate(gone("deeper-layers", seen), start=1):
        distance = {i: sum(math.acos(cosine(states[i, s, -1], states[i + n, s, -1])) / math.pi for s in range(4)) / 4 for i in range(_LAYERS - n + 1)}
        first = min(distance, key=lambda i: distance[i])
        assert found == tuple(range(first, first + n))


def laco(n_layers: int, span: int, threshold: float) -> tuple[int, ...]:
    """Algorithm 1 of LaCo with one layer of each merge left: the layers that are gone."""
    left, at = list(range(n_layers)), n_layers - span
    while at >= 0:
        shorter = [layer for place, layer in enumerate(left) if not at < place < at + span]
        gone = tuple(sorted(set(range(n_layers)) - set(shorter)))
        if kept_model(without(gone)).cosine > threshold:
            left, at = shorter, at - 2
            at = min(at, len(left) - span)
        else:
            at -= 1
    return tuple(sorted(set(range(n_layers)) - set(left)))


def without(gone: tuple[int, ...]) -> Structure:
    return Structure(*(tuple(0 if i in gone else n for i in range(_LAYERS)) for n in (3, 1536)))


def test_laco_takes_blocks_while_the_last_states_stay_alike(seen: SeenModel) -> None:
    expected = [laco(_LAYERS, span, threshold) for span in (2, 4) for threshold in (0.98, 0.95, 0.9, 0.8, 0.65, 0.45)]
    found = gone("laco", seen)
    assert found == [layers for layers in dict.fromkeys(expected) if layers]
    assert len(found) > 2
    assert all(kept_model(without(layers)).cosine > 0.45 for layers in found)


def test_trimllm_takes_one_block_after_another(seen: SeenModel) -> None:
    found, so_far = gone("trimllm", seen), list[int]()
    for layers in found:
        so_far.append(min(set(range(1, _LAYERS)) - set(so_far), key=lambda i: kept_model(without((*so_far, i))).nats_per_token))
        assert layers == tuple(sorted(so_far))
    assert len(found) == _LAYERS // 4


def test_uniql_shares_what_goes_by_softmax(seen: SeenModel, states: np.ndarray) -> None:
    influence = [1 - sum(cosine(states[i, s, -1], states[i + 1, s, -1]) for s in range(4)) / 4 for i in range(_LAYERS)]
    raised = [math.exp(-s / 0.1) for s in influence]
    expected = [min(_LAYERS * 0.2 * e / sum(raised), 0.85) for e in raised]
    np.testing.assert_allclose(uniql_shares(np.array(influence), 0.2), expected)
    method = structure_method("uniql")
    assert method is not None
    found = list(method.proposed(seen, _WHOLE, widths))
    assert all(n in widths(1536) for structure in found for n in structure.channels)
    of_a_fifth = found[3].channels  # 0.8 kept
    assert list(of_a_fifth) == [min(widths(1536), key=lambda width: abs(width - (1 - lost) * 1536)) for lost in expected]


def test_llm_pruner_narrows_the_blocks_between_the_first_eighth_and_the_last_sixteenth(seen: SeenModel) -> None:
    """Expect the share of its released commands, which narrow layers 4 to 29 of 32 by a quarter for a fifth of the weights."""
    method, whole = structure_method("llm-pruner"), Structure((32,) * 32, (8192,) * 32)
    assert method is not None
    for found, share in zip(method.proposed(seen, whole, widths), (0.2, 0.3, 0.5), strict=True):
        left = 1 - share * 32 / 26
        for i, (groups, channels) in enumerate(zip(found.head_groups, found.channels, strict=True)):
            if 4 <= i < 30:
                assert abs(groups / 32 - left) <= 1 / 64
                assert abs(channels / 8192 - max(left, 0.5)) <= 1 / 64
            else:
                assert (groups, channels) == (32, 8192)


def test_collaborative_keeps_the_experts_of_the_greatest_router_scores(seen: SeenModel) -> None:
    method, whole = structure_method("collaborative"), Structure((3,) * _LAYERS, (0,) * _LAYERS, (tuple(range(8)),) * _LAYERS)
    assert method is not None
    found = list(method.proposed(seen, whole, widths))
    assert [len(kept.experts[0]) for kept in found] == [7, 6, 5, 4]
    for kept in found:
        for experts, scores in zip(kept.experts, _SCORES.tolist(), strict=True):
            assert set(experts) == set(sorted(range(8), key=lambda expert: scores[expert])[8 - len(experts) :])


def test_collaborative_leaves_as_many_as_a_token_is_sent_to(seen: SeenModel) -> None:
    method, whole = structure_method("collaborative"), Structure((3,) * _LAYERS, (0,) * _LAYERS, (tuple(range(8)),) * _LAYERS)
    assert method is not None
    assert [len(kept.experts[0]) for kept in method.proposed(replace(seen, n_experts_used=6), whole, widths)] == [7, 6]


def test_a_share_that_the_bound_does_not_touch_is_the_mean() -> None:
    influence = np.random.default_rng(0).uniform(0.1, 0.2, 12)
    assert uniql_shares(influence, 0.25).mean() == pytest.approx(0.25)
    np.testing.assert_allclose(uniql_shares(np.full(4, 0.3), 0.25), 0.25)


@pytest.mark.parametrize("method", STRUCTURE_METHODS, ids=lambda method: method.name)
def test_a_method_is_asked_for_by_name_with_its_kinds(method: object) -> None:
    assert asked_structure(f" {method.name.upper()} ") == (method.kinds, method.name)  # type: ignore[attr-defined]


def test_kinds_are_asked_for_without_a_method() -> None:
    assert asked_structure("heads,attention") == (("attention", "heads"), "")
    assert asked_structure("") == ((), "")
    with pytest.raises(UserError) as refused:
        asked_structure("shortgtp")
    sentence(refused.value, "shortgtp", "docs/structure.md")
    with pytest.raises(UserError) as refused:
        asked_structure("layers,shortgpt")
    sentence(refused.value, "shortgpt", "alone")
