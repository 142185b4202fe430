"""Published models as the package keeps them, and the sensitivities that they let expect of another."""

import numpy as np
import pytest

from bitwright.predictors.sensitivity.names.published_models import (
    CREDIT,
    OUTSIDE,
    Family,
    Place,
    expected,
    parsed,
    published_models,
    smoothed,
    written,
)

DENSE = Family(frozenset({"attn_q", "ffn_down"}), 1_000)
ROUTED = Family(frozenset({"attn_q", "ffn_down_exps"}), 1_000)
PLACES = [Place(role, (layer + 0.5) / 4) for layer in range(4) for role in ("attn_q", "ffn_down")]
#: falls along the depth, and is ten times as much for down matrices
VALUES = [10.0 ** (role - layer) for layer in range(4) for role in (0, 1)]


def test_kinship_falls_with_other_roles_and_another_size() -> None:
    assert DENSE.kinship(DENSE) == 1
    assert DENSE.kinship(ROUTED) == pytest.approx(np.exp(-(2 / 3) / 0.2))
    assert DENSE.kinship(Family(DENSE.roles, 100)) == pytest.approx(10**-0.5)


def test_a_known_place_is_expected_as_it_was_less_the_median() -> None:
    model = smoothed("known", DENSE, PLACES, VALUES)
    assert expected([model], DENSE, PLACES) == pytest.approx(np.log(VALUES) - np.median(np.log(VALUES)), abs=0.1)


def test_a_role_that_no_model_has_is_expected_as_all_others_at_its_depth() -> None:
    model = smoothed("known", DENSE, PLACES, VALUES)
    first, last = expected([model], DENSE, [Place("new", 1 / 8), Place("new", 7 / 8)])
    assert first - last == pytest.approx(3 * np.log(10), abs=0.1)


def test_of_two_models_the_nearer_one_counts_and_one_without_the_role_hardly() -> None:
    steep, flat = smoothed("steep", DENSE, PLACES, VALUES), smoothed("flat", ROUTED, [Place("attn_q", 0.5)], [1.0])
    of_both = expected([steep, flat], DENSE, PLACES)
    assert of_both[1] == pytest.approx(expected([steep], DENSE, PLACES)[1], abs=1e-3)  # a down matrix
    first, share = expected([steep], DENSE, PLACES)[0], 1 / (1 + np.exp(-(2 / 3) / 0.2))
    assert of_both[0] == pytest.approx(share * first)


def test_what_is_written_is_read_again() -> None:
    model = smoothed("known", DENSE, PLACES, VALUES)
    (again,) = parsed(written([model]))
    assert (again.name, again.family) == (model.name, model.family)
    assert expected([again], DENSE, PLACES) == pytest.approx(expected([model], DENSE, PLACES), abs=0.01)


def test_the_package_has_twenty_models_and_names_whose_they_are() -> None:
    models = published_models()
    assert len({model.name for model in models}) == 20
    assert CREDIT in written(models)
    assert all(len(values) == 16 and np.isfinite(values).all() for model in models for values in model.by_role.values())
    down, query = expected(models, DENSE, [Place("ffn_down", 0.02), Place("attn_q", 0.5)])
    assert down > query
    assert expected(models, DENSE, [Place("token_embd", OUTSIDE)]) > down
