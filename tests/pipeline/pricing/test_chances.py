"""Slow formats that are not tried: none that a plan of all formats would use, and only where they cannot help."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.pricing.chances import left_out_text, with_a_chance, worth_trying
from bitwright.pipeline.pricing.price_table import distortion_of, quantized_distortion
from bitwright.pipeline.pricing.run_space import price, whole_space
from bitwright.progress import Silent
from bitwright.search import solve
from bitwright.spaces import Space
from tests.runs import small
from tests.search.instances import language_model

pytestmark = pytest.mark.slow

MENU = ("Q8_0", "Q4_0", "Q2_K", "IQ2_XXS")


def without_slow(space: Space) -> Space:
    return space.narrowed(np.broadcast_to([not form.is_slow for form in space.formats], space.offered.shape))


@pytest.mark.parametrize("bits", [2.9, 3.2, 4.0, 4.6, 6.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_pair_of_the_best_plan_of_all_formats_is_left_out(bits: float, seed: int) -> None:
    space, _ = language_model(seed, shape_aware=False)
    rng = np.random.default_rng(seed)
    factor = np.exp(rng.normal(0, 1, (len(space.units), 1)))
    table = factor * 4.0 ** -np.array([form.bits_per_weight for form in space.formats]) * rng.uniform(0.85, 1.3, space.offered.shape)
    others = without_slow(space)
    for size in (1.0, 1.2):
        best = solve(space, table, int(size * bits * space.n_weights))
        found = with_a_chance(space, others, np.where(others.offered, table, 0), least_bits=int(bits * space.n_weights))
        assert found[np.arange(len(best.choice)), best.choice].all()
        assert found[others.offered].all()
    assert bits < 4 or found.sum() < space.offered.sum()


def bench(model: Path, folder: Path) -> LoadedRun:
    return set_up(small(model, formats=MENU, price_rows="16"), folder, device="cpu", progress=Silent())


def test_a_run_tries_slow_formats_only_for_files_that_could_use_them(llama_256: Path, tmp_path: Path) -> None:
    made = bench(llama_256, tmp_path)
    everything = whole_space(made)
    sizes = [everything.total_bytes(everything.uniform(form)) for form in everything.formats if form.name in ("Q8_0", "IQ2_XXS")]
    assert worth_trying(made, everything, 0) == (everything, None)
    assert worth_trying(made, everything, sizes[1]) == (everything, None)  # nothing else is as small
    few, _ = worth_trying(made, everything, int(0.98 * sizes[0]))
    assert (few.offered == without_slow(everything).offered).all()
    run = price(made, int(0.98 * sizes[0]))
    assert not [*(tmp_path / "levels").rglob("*.IQ2_XXS")]
    assert "files below" in left_out_text(run)["slow formats"]
    assert not run.tried[:, [form.name for form in run.space.formats].index("IQ2_XXS")].any()


def test_what_the_bound_quantized_has_the_errors_that_it_has_when_all_is_quantized_at_once(llama_256: Path, tmp_path: Path) -> None:
    made = bench(llama_256, tmp_path)
    everything = whole_space(made)
    smallest = without_slow(everything).total_bytes(without_slow(everything).smallest())
    space, quantized = worth_trying(made, everything, int(1.1 * smallest))
    assert quantized is not None
    assert (space.offered & ~quantized[0].offered).any()
    at_once, completed = quantized_distortion(made, space), distortion_of(made, space, quantized)
    for one, other in ((at_once.plain, completed.plain), (at_once.weighted, completed.weighted)):
        np.testing.assert_array_equal(one, other)


def test_a_model_that_is_priced_by_all_rows_has_all_formats_tried(llama_256: Path, tmp_path: Path) -> None:
    made = bench(llama_256, tmp_path)
    whole = replace(made, settings=replace(made.settings, price_rows="all"))
    everything = whole_space(whole)
    assert worth_trying(whole, everything, 10**9) == (everything, None)
