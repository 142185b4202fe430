"""Tables of some of a text's sequences, from products stored by sequence."""

from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Model
from bitwright.predictors import gradient_products, proxy_named, tables_by_text
from bitwright.predictors.sensitivity.gradients import sweep as sweeping
from bitwright.predictors.sensitivity.gradients.gradient import gradient_table
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened

pytestmark = pytest.mark.slow

TOKENS, ALL, SOME = random_tokens(6, 8), np.arange(6), np.array([0, 2, 5])


@pytest.mark.parametrize("name", ["gradient", "gradient-raw", "joint"])
def test_all_sequences_give_the_proxy_s_own_table_and_no_pass_is_made(
    name: str, mixtral: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, levels = space_of(mixtral, ("Q8_0", "Q4_0")), levels_of(mixtral, tmp_path / "levels")
    error = np.random.default_rng(0).uniform(1e-4, 1e-2, space.offered.shape)
    distortion = type("Errors", (), {"weighted": error, "plain": error})()
    with opened(mixtral, levels, space=space, tokens=TOKENS, store=tmp_path / "a.sqlite") as subject:
        expected = proxy_named(name).price(subject, distortion)
        monkeypatch.setattr(sweeping, "priced_batch", None)
        whole, some = tables_by_text(name, subject, error, [ALL, SOME])
        np.testing.assert_array_equal(whole, expected)
        assert not np.allclose(some[space.offered], whole[space.offered])
        if name == "gradient-raw":
            values = gradient_products(subject).values[SOME]
            np.testing.assert_allclose(some, (values**2).mean(axis=0) / (2 * 8))
            np.testing.assert_allclose(some, gradient_table(gradient_products(subject).only(SOME)))


def test_other_proxies_keep_nothing(mixtral: Model, tmp_path: Path) -> None:
    space, levels = space_of(mixtral, ("Q8_0", "Q4_0")), levels_of(mixtral, tmp_path / "levels")
    with opened(mixtral, levels, space=space, tokens=TOKENS, store=tmp_path / "a.sqlite") as subject:
        assert tables_by_text("importance", subject, np.ones(space.offered.shape), [SOME]) == []
