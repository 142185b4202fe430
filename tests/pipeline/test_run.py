import json
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.engines import LLAMA_CPP
from bitwright.errors import RunError
from bitwright.objectives import Store
from bitwright.pipeline import Run
from bitwright.pipeline.run import store_prices, stored_run
from bitwright.spaces import Tensor, Unit
from tests.measuring import put_quality
from tests.sentences import sentence


def priced(folder: Path) -> Run:
    units = (
        Unit("blk.0.attn_q", 0, "attn_q", (Tensor("blk.0.attn_q.weight", (8, 64), "BF16"),)),
        Unit("tie", -1, "tie", (Tensor("a.weight", (4, 4, 32), "F16", "ffn_down_exps"), Tensor("b.weight", (2, 32), "F32", initialised=True))),
    )
    space = LLAMA_CPP.space(units, menu=("Q8_0", "Q4_0"), fixed_bytes=123, n_weights=4567)
    table = np.where(space.offered, np.arange(2 * len(space.formats)).reshape(2, -1) / 7, np.nan)
    return Run(
        folder,
        Store(folder / "run.sqlite"),
        bw.Settings("m"),
        space,
        tried=~np.isnan(table),
        table=table,
        second_table=table / 3,
        original_bytes=99_999,
    )


def test_prices_come_back_as_they_were_kept(tmp_path: Path) -> None:
    given = priced(tmp_path)
    store_prices(given)
    found = stored_run(tmp_path, given.store, given.settings)
    given.store.close()
    assert (found.space.units, found.space.formats) == (given.space.units, given.space.formats)
    assert (found.space.fixed_bits, found.space.n_weights, found.original_bytes) == (8 * 123, 4567, 99_999)
    for name in ("size_bits", "offered"):
        np.testing.assert_array_equal(vars(found.space)[name], vars(given.space)[name])
    np.testing.assert_array_equal(found.table, given.table)
    np.testing.assert_array_equal(found.tried, given.tried)


@pytest.mark.slow
def test_a_finished_search_is_opened_without_its_model(searched: Run) -> None:
    found = bw.open_run(searched.folder)
    assert found.settings == searched.settings
    assert list(found.measurements) == list(searched.measurements)
    np.testing.assert_array_equal(found.table, searched.table)
    assert found.scale == searched.scale
    found.store.close()


def test_the_scale_is_that_of_all_measurements(tmp_path: Path) -> None:
    run = priced(tmp_path)
    choice = run.space.uniform(LLAMA_CPP.format("Q4_0"))
    assert run.scale.factor == 1
    put_quality(run.store, choice, (3 * run.summed(choice),))
    assert run.scale.factor == pytest.approx(3)
    run.store.close()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RunError) as refused:
            bw.open_run(folder)
        sentence(refused.value, folder, "bitwright search")
    assert not list(tmp_path.iterdir())


def test_a_run_that_has_only_begun_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.sqlite")
    with pytest.raises(RunError) as refused:
        bw.open_run(tmp_path)
    sentence(refused.value, tmp_path, "bitwright search")
    store.put_text("settings", bw.Settings("m").to_json())
    with pytest.raises(RunError) as refused:
        bw.open_run(tmp_path)
    sentence(refused.value, tmp_path, "prices")
    store.put_text("prices", json.dumps({"target": "llama.cpp", "units": [], "fixed_bits": 0, "n_weights": 1, "original_bytes": 1}))
    with pytest.raises(RunError):
        bw.open_run(tmp_path)
    store.close()
