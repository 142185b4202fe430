"""Rows that a run prices by: all of a small model, a sample where the settings or the model's size say so, and never of codes that must be kept."""

import json
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.engines import LLAMA_CPP
from bitwright.errors import UserError
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.pricing import priced_rows as module
from bitwright.pipeline.pricing.price_table import distortion_of, priced, subject_of
from bitwright.pipeline.pricing.priced_rows import PRICE_ERRORS, priced_rows, store_price_errors
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.pipeline.settings import settings_from_json
from bitwright.progress import Silent
from tests.runs import small
from tests.sentences import sentence


def bench(settings: bw.Settings, folder: Path) -> LoadedRun:
    return set_up(settings, folder, device="cpu", progress=Silent())


@pytest.mark.slow
def test_small_models_are_priced_by_all_rows_unless_a_number_is_given(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(small(llama_tied), tmp_path / "o")
    space = whole_space(made)
    assert priced_rows(made, space) is None
    monkeypatch.setattr(module, "WHOLE_WEIGHTS", 10)
    assert priced_rows(made, space) is not None
    monkeypatch.undo()
    assert priced_rows(bench(small(llama_tied, price_rows="16"), tmp_path / "some"), space) is not None
    assert priced_rows(bench(small(llama_tied, price_rows="all"), tmp_path / "all"), space) is None


def test_a_sample_prices_every_pair_and_says_its_error(llama_tied: Path, tmp_path: Path) -> None:
    made = bench(small(llama_tied, price_rows="16"), tmp_path)
    everything = whole_space(made)
    distortion = distortion_of(made, everything)
    space = everything.narrowed(distortion.worth_offering(everything))
    table = priced(made, "gradient", space=space, distortion=distortion)
    assert (table[space.offered] >= 0).all()
    store_price_errors(made, subject_of(made, space))
    errors = made.store.array(PRICE_ERRORS)
    assert errors.shape == table.shape
    assert (errors[table > 0] > 0).all()
    assert "of" in made.store.text("rows that formats are priced by")
    packed = sum(path.stat().st_size for path in (tmp_path / "levels").rglob("*.Q4_0"))
    assert 0 < packed < 0.7 * sum(LLAMA_CPP.format("Q4_0").size_bytes(t.shape) for u in space.units for t in u.tensors)


@pytest.mark.slow
def test_rows_are_drawn_by_what_a_light_pass_lets_expect_where_prices_are_squares(llama_tied: Path, tmp_path: Path) -> None:
    by_gradient, by_weight = (bench(small(llama_tied, price_rows="16", sensitivity=name), tmp_path / name) for name in ("gradient", "weight"))
    space = whole_space(by_gradient)
    unequal, equal = (priced_rows(each, space) for each in (by_gradient, by_weight))
    assert unequal is not None
    assert equal is not None
    assert len(np.unique(unequal.drawn["blk.0.ffn_up.weight"].weights)) > 2
    assert len(np.unique(equal.drawn["blk.0.ffn_up.weight"].weights)) == 1
    stages = by_gradient.store.stages()
    assert "rows" in [name for name, *_ in stages]
    again = priced_rows(by_gradient, space)
    assert again is not None
    assert again.key == unequal.key
    assert by_gradient.store.stages() == stages  # the pass is not made again
    assert "rows" not in [name for name, *_ in by_weight.store.stages()]


def test_a_run_continues_with_the_same_rows_and_any_bound(llama_tied: Path, tmp_path: Path) -> None:
    one, other = small(llama_tied, price_rows="16"), small(llama_tied, price_rows="16", disk_limit_bytes=10**6)
    source = bench(one, tmp_path).model.source
    assert one.identity(source) == other.identity(source) != small(llama_tied).identity(source)
    assert settings_from_json(other.to_json()) == other
    assert json.loads(other.to_json())["disk_limit_bytes"] == 10**6


@pytest.mark.parametrize("rows", ["some", "-3", "0.5", "3"])
def test_rows_that_are_no_number_are_refused(rows: str) -> None:
    with pytest.raises(UserError) as caught:
        bw.Settings("model", price_rows=rows)
    sentence(caught.value, rows)
