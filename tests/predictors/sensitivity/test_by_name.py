from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitwright.compress import Distortion, GgmlCodec, Model, PackedTensors, measure_distortion
from bitwright.errors import UserError
from bitwright.objectives import collect_importance
from bitwright.predictors import PROXIES, Proxy, proxy_named
from bitwright.progress import Silent
from bitwright.spaces import Space
from tests.measuring import random_tokens, space_of, weights_of
from tests.predictors.subjects import opened
from tests.sentences import sentence

pytestmark = pytest.mark.slow

TOKENS = random_tokens(4, 8)


def prepared(model: Model, folder: Path) -> tuple[PackedTensors, Space, Distortion]:
    """Packed tensors with importance as in a run, the space, and the distortion."""
    importance = collect_importance(model, TOKENS, progress=Silent())
    levels, space = PackedTensors(folder, model.source, GgmlCodec(), importance), space_of(model, ("BF16", "Q8_0", "Q4_0"))
    return levels, space, measure_distortion(space, levels, progress=Silent())


@pytest.mark.parametrize("model", ["tied", "mixtral"])
@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
def test_every_proxy_prices_every_pair_and_costs_what_it_says(
    proxy: Proxy, model: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: Model = request.getfixturevalue(model)
    levels, space, distortion = prepared(made, tmp_path / "levels")
    space = space.narrowed(~np.isnan(distortion.plain))
    before, read, inner = weights_of(made), [], type(made.module).forward

    def counting(self: Any, ids: torch.Tensor, *given: Any, **named: Any) -> Any:
        read.append(ids.numel())
        return inner(self, ids, *given, **named)

    monkeypatch.setattr(type(made.module), "forward", counting)
    with opened(made, levels, space=space, tokens=TOKENS, store=tmp_path / "a.sqlite") as subject:
        table = proxy.price(subject, distortion)
        once = sum(read)
        np.testing.assert_array_equal(proxy.price(subject, distortion), table)
    assert table.shape == space.offered.shape
    assert np.isfinite(table[space.offered]).all()
    assert (np.ptp(np.where(space.offered, table, 0), axis=0) > 0).any()
    assert all(torch.equal(weight, before[name]) for name, weight in made.module.named_parameters())
    expected = proxy.passes(space).forward * TOKENS.n_tokens
    assert once <= expected
    if proxy.name not in {"block-output", "pmq", "pmq-released", "router-score"}:  # which run a block at a time, or need routers
        assert once >= 0.9 * expected, "random orders may meet"
        assert sum(read) == once, "cached results are not computed again"


def test_names_are_unique_and_found() -> None:
    assert len({proxy.name for proxy in PROXIES}) == len(PROXIES)
    assert all(proxy_named(proxy.name) is proxy for proxy in PROXIES)
    assert {"gradient", "importance", "weight", "measured"} <= {proxy.name for proxy in PROXIES}
    with pytest.raises(UserError) as refused:
        proxy_named("first_order")
    sentence(refused.value, "'first_order'", "did you mean first-order?")
    with pytest.raises(UserError) as refused:
        proxy_named("")
    sentence(refused.value, "choose from weight, ")


@pytest.mark.parametrize("name", ["weight", "importance", "prior"])
def test_proxies_without_text_cost_no_tokens(name: str, tied: Model) -> None:
    passes = proxy_named(name).passes(space_of(tied, ("Q4_0",)))
    assert (passes.forward, passes.backward, passes.tokens(1000)) == (0, 0, 0)


def test_tokens_are_counted_both_ways(tied: Model) -> None:
    space = space_of(tied, ("Q8_0", "Q4_0"))
    n_units = len(space.units)
    assert proxy_named("gradient").passes(space).tokens(1000) == 2000
    assert proxy_named("delta-loss").passes(space).tokens(1000) == 4000
    assert proxy_named("measured").passes(space).tokens(10) == 10 * (1 + 2 * n_units)
    assert proxy_named("measured-fine").passes(space).tokens(10) == 10 * (2 + n_units)
    assert proxy_named("noise").passes(space).tokens(10) == 10 * (1 + 4 * n_units)
    assert proxy_named("shapley").passes(space).tokens(10) == 10 * (3 + 8 * (n_units - 1))
