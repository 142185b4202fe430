from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.engines import LLAMA_CPP
from bitwright.errors import ModelError
from bitwright.pipeline import Run
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.pricing.run_space import front_points, original_bytes, price, uniforms, whole_space
from bitwright.progress import Silent
from bitwright.search import hull
from tests.runs import UNSEARCHED, small
from tests.sentences import sentence

pytestmark = pytest.mark.slow


def bench(settings: bw.Settings, folder: Path) -> LoadedRun:
    return set_up(settings, folder, device="cpu", progress=Silent())


@pytest.fixture(scope="module")
def searched_by(llama_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Searches with four sensitivities, whose points are those of their tables."""
    formats, folder = ("Q8_0", "Q4_0", "IQ4_NL"), tmp_path_factory.mktemp("searched")
    runs = {
        name: bw.pipeline.search(small(llama_tied, sensitivity=name, formats=formats), folder / name, n_points=3, by=UNSEARCHED)
        for name in ("weight", "importance", "gradient", "measured")
    }
    yield runs
    for run in runs.values():
        run.store.close()


@pytest.mark.parametrize("sensitivity", ["weight", "importance", "gradient", "measured"])
def test_every_sensitivity_gives_a_front(sensitivity: str, searched_by: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    run = searched_by[sensitivity]
    table, tried = run.table, run.tried
    assert table.shape == run.space.offered.shape
    assert (tried & ~run.space.offered).any(), "of two formats of one size only the better is offered"
    assert np.isfinite(table[tried]).all(), "a uniform allocation may use every pair that was tried"
    assert (table[tried] > -1e-5).all()
    sums = {name: run.summed(choice) for name, choice in uniforms(run).items()}
    assert len(sums) == 3
    assert min(sums, key=lambda name: sums[name]) == "uniform Q8_0"
    assert len(run.measurements) >= 3
    monkeypatch.setattr("bitwright.pipeline.pricing.run_space.distortion_of", None)
    assert (price(bench(run.settings, run.folder)).table == table)[tried].all()


@pytest.mark.parametrize("sensitivity", ["alignment", "measured-coarse", "shapley", "lim", "hawq", "delta-loss"])
def test_so_does_every_other_proxy(sensitivity: str, llama_tied: Path, tmp_path: Path) -> None:
    """Prices below zero among them: there, coarse weights make up for other errors."""
    run = bw.pipeline.search(small(llama_tied, sensitivity=sensitivity), tmp_path / "o", n_points=2, by=UNSEARCHED)
    assert np.isfinite(run.table[run.tried]).all()
    sums = {name: run.summed(choice) for name, choice in uniforms(run).items()}
    assert sums["uniform Q8_0"] < sums["uniform Q4_0"]
    assert len(run.measurements) >= 2
    run.store.close()


def test_the_four_sensitivities_differ(searched_by: dict[str, Run]) -> None:
    found = {name: np.log(np.maximum(run.table[run.tried], 1e-12)) for name, run in searched_by.items()}
    for first, one in found.items():
        for second, other in found.items():
            assert first == second or not np.allclose(one, other, atol=1e-3)
    assert np.corrcoef(found["gradient"], found["measured"])[0, 1] > 0.7
    assert np.corrcoef(found["gradient"], found["measured"])[0, 1] > np.corrcoef(found["weight"], found["measured"])[0, 1]


def test_a_menu_of_formats_that_need_importance_leaves_other_units_something(gguf_256: Path, tmp_path: Path) -> None:
    """The embedding of a model that is not tied has no importance, so it cannot have any format of this menu."""
    space = whole_space(bench(small(gguf_256, formats=("IQ2_XS", "IQ1_S")), tmp_path / "o"))
    names = np.array([form.name for form in space.formats])
    offered = {unit.name: set(names[row]) for unit, row in zip(space.units, space.offered, strict=True)}
    assert offered.pop("token_embd") == {form.name for form in space.formats if not form.needs_importance}
    assert set(map(frozenset, offered.values())) == {frozenset({"IQ2_XS", "IQ1_S"})}


def test_sizes_count_the_whole_file(gguf_256: Path, tmp_path: Path) -> None:
    made = bench(small(gguf_256), tmp_path / "o")
    assert original_bytes(made) == gguf_256.stat().st_size
    space = whole_space(made)
    assert space.n_weights == sum(tensor.n_weights for tensor in made.model.tensors)
    assert {unit.name for unit in space.units} == {tensor.name.removesuffix(".weight") for tensor in made.model.tensors if len(tensor.shape) > 1}


def test_uniform_allocations_are_of_formats_that_most_weights_can_have(searched: Run) -> None:
    found = uniforms(searched)
    space = searched.space
    assert list(found) == ["uniform Q8_0", "uniform Q5_0", "uniform Q4_0"]
    for name, choice in found.items():
        assert {space.formats[i].name for i in choice} == {name.removeprefix("uniform ")}


def test_points_of_the_front_are_spread_over_its_sizes(searched: Run) -> None:
    front, points = hull(searched.space, searched.table), front_points(searched, 3)
    sizes = [searched.space.total_bits(choice) for choice in points]
    assert len(points) == 3
    assert (sizes[0], sizes[-1]) == (front.size_bits.min(), front.size_bits.max())
    assert abs(sizes[1] - (sizes[0] + sizes[2]) / 2) < 0.2 * (sizes[2] - sizes[0])


def test_what_is_kept_is_no_unit_and_stays_in_the_file(llama_96: Path, tmp_path: Path) -> None:
    space, whole = (whole_space(bench(small(llama_96, skip=keep), tmp_path / str(len(keep)))) for keep in (("token_embd*", "blk.1.*"), ()))
    kept = {unit.name for unit in whole.units} - {unit.name for unit in space.units}
    assert kept == {unit.name for unit in whole.units if unit.name == "token_embd" or unit.name.startswith("blk.1.")}
    stored = {tensor.name: form for unit in whole.units for tensor in unit.tensors for form in whole.formats if form.name == tensor.stored}
    bits = sum(8 * LLAMA_CPP.stored_bytes(t.shape, stored[t.name]) for u in whole.units if u.name in kept for t in u.tensors)
    assert space.fixed_bits == pytest.approx(whole.fixed_bits + bits, abs=64 * 8)  # the metadata of the file grow by nothing
    assert space.n_weights == whole.n_weights


@pytest.mark.parametrize(("keep", "named"), [(("attention*",), "'attention*'"), (("*",), "leaves every matrix")])
def test_patterns_that_keep_nothing_or_all_are_refused(llama_96: Path, tmp_path: Path, keep: tuple[str, ...], named: str) -> None:
    with pytest.raises(ModelError) as caught:
        whole_space(bench(small(llama_96, skip=keep), tmp_path))
    sentence(caught.value, named)
