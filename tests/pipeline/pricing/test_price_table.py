from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bitwright as bw
from bitwright.errors import UserError
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.pricing import price_table as pricing
from bitwright.pipeline.pricing.price_table import distortion_of, priced, priced_twice
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.progress import Silent
from tests.runs import small
from tests.sentences import sentence

pytestmark = pytest.mark.slow


def bench(model: Path, folder: Path, **other: Any) -> LoadedRun:
    return set_up(small(model, **other), folder, device="cpu", progress=Silent())


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("work was done again")


def test_what_formats_do_is_measured_once(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(llama_tied, tmp_path)
    space = whole_space(made)
    first = distortion_of(made, space)
    monkeypatch.setattr(pricing, "sampled_distortion", refuse)
    again = distortion_of(made, space)
    np.testing.assert_array_equal(again.plain, first.plain)
    np.testing.assert_array_equal(again.weighted, first.weighted)
    assert not np.array_equal(first.plain, first.weighted, equal_nan=True)


def test_a_table_is_kept_with_what_it_cost(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(llama_tied, tmp_path)
    space = whole_space(made)
    distortion = distortion_of(made, space)
    table = priced(made, "first-order", space=space, distortion=distortion)
    assert (np.isnan(table) == ~space.offered).all()
    tokens = {name: n_tokens for name, _, n_tokens, _ in made.store.stages()}
    assert tokens["first-order"] == 2 * made.texts.calibration.n_tokens
    monkeypatch.setattr(pricing, "subject_of", refuse)
    np.testing.assert_array_equal(priced(made, "first-order", space=space, distortion=distortion), table)


@pytest.mark.parametrize(
    ("name", "second"), [("gradient", "gradient-raw"), ("importance", "weight"), ("weight", "importance"), ("first-order", "importance")]
)
def test_the_second_opinion_is_another_table_that_costs_nothing(name: str, second: str, llama_tied: Path, tmp_path: Path) -> None:
    made = bench(llama_tied, tmp_path)
    space = whole_space(made)
    distortion = distortion_of(made, space)
    found = priced_twice(made, name, space=space, distortion=distortion)
    for table, expected in zip(found, (name, second), strict=True):
        np.testing.assert_array_equal(table[space.offered], priced(made, expected, space=space, distortion=distortion)[space.offered])
    assert np.isfinite(found[0][~np.isnan(distortion.plain)]).all()
    assert (found[0] != found[1])[space.offered].any()


def test_a_name_that_is_not_known_is_refused_before_anything_is_done(llama_tied: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        bw.Settings(str(llama_tied), sensitivity="gradeint")
    sentence(refused.value, "'gradeint'", "did you mean gradient?")
    made = bench(llama_tied, tmp_path)
    space = whole_space(made)
    with pytest.raises(UserError, match="'guess'"):
        priced(made, "guess", space=space, distortion=distortion_of(made, space))
