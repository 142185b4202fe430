"""Comparison of a run's calibration texts one by one, from what it stored."""

from pathlib import Path

import numpy as np
import pytest

import bitwright as bw
from bitwright.methods.by_name import method_named
from bitwright.objectives import Tokens
from bitwright.objectives.text.routing import collect_routing
from bitwright.pipeline import Run, Search
from bitwright.pipeline.calibration.mixture import sequences_by_text
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.pricing.price_table import distortion_of, subject_of
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.pipeline.reporting.text_comparison import text_comparison
from bitwright.pipeline.run import chance_table_key, text_table_key
from bitwright.predictors import gradient_products, stored
from bitwright.predictors.sensitivity.gradients.shrinkage import shrunk_table
from bitwright.progress import Silent
from bitwright.report import TextAllocation, TextComparison
from bitwright.search import solve
from tests.pipeline.calibration.test_mixture import texts
from tests.runs import small

pytestmark = pytest.mark.slow

__all__ = ["texts"]
BY = Search(method_named("auto"), evaluations=0)


@pytest.fixture(scope="module")
def run(tiny_mixtral: Path, texts: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = small(
        tiny_mixtral, target="native", formats=("INT2_G32", "INT3_G32", "INT4_G32"), calibration=f"{texts[0]},{texts[1]}", n_calibration=12,
        sequence_length=32, skip=("token_embd*", "output*"),
    )  # fmt: skip
    return bw.pipeline.search(settings, tmp_path_factory.mktemp("comparison") / "run", n_points=2, by=BY)


def compared(run: Run) -> TextComparison:
    space = run.space
    found = text_comparison(bw.open_run(run.folder), (space.total_bytes(space.smallest()) + space.total_bytes(space.largest())) // 2)
    assert isinstance(found, TextComparison)
    return found


def test_a_text_alone_is_priced_by_its_own_sequences(run: Run) -> None:
    bench = set_up(run.settings, run.folder, device="cpu", progress=Silent())
    space = run.space
    products = gradient_products(subject_of(bench, stored(space)))
    error = distortion_of(bench, whole_space(bench)).weighted
    for i, rows in enumerate(sequences_by_text(bench.store)):
        assert len(rows) == 6
        expected = shrunk_table(products.only(rows), error)
        table, chance = (run.store.array(key(i)).astype(np.float64) for key in (text_table_key, chance_table_key))
        assert (table[space.offered] >= expected[space.offered] * (1 - 1e-9)).all(), "a floor only raises"
        np.testing.assert_allclose(table[~(table > expected) & space.offered], expected[~(table > expected) & space.offered])
        assert not np.allclose(table[space.offered], chance[space.offered])


def test_routing_is_told_by_text_and_was_read_in_one_pass(run: Run) -> None:
    bench, found = set_up(run.settings, run.folder, device="cpu", progress=Silent()), compared(run)
    tokens = bench.texts.calibration
    for text, rows in zip(found.texts, sequences_by_text(bench.store), strict=True):
        expected = collect_routing(bench.model, Tokens(tokens.ids[rows], ""), progress=Silent())
        np.testing.assert_allclose(text.frequencies, expected.frequency)
    np.testing.assert_allclose(found.frequencies, collect_routing(bench.model, tokens, progress=Silent()).frequency)
    assert found.texts[0].frequencies != found.texts[1].frequencies
    read = {name: n_tokens for name, _, n_tokens, _ in run.store.stages()}
    assert read["routing"] == tokens.n_tokens


def test_each_text_has_the_optimum_of_its_own_prices(run: Run) -> None:
    found, space = compared(run), run.space
    size_bytes = (space.total_bytes(space.smallest()) + space.total_bytes(space.largest())) // 2
    units = np.arange(len(space.units))
    together = solve(space, run.table, 8 * size_bytes).choice
    assert found.together.formats == tuple(space.formats[f].name for f in together)
    assert found.kinds == ("attn_q", "attn_k", "attn_v", "attn_output", "blk.0, experts", "blk.1, experts")
    for i, text in enumerate(found.texts):
        assert isinstance(text.alone, TextAllocation)
        table = run.store.array(text_table_key(i)).astype(np.float64)
        own = solve(space, table, 8 * size_bytes).choice
        assert text.alone.allocation.formats == tuple(space.formats[f].name for f in own)
        assert text.alone.n_differing(found.together) == int((own != together).sum())
        assert text.alone.loss == pytest.approx(table[units, together].sum() / table[units, own].sum())
        assert text.alone.loss >= 1
        assert -1 <= text.alone.spearman <= 1
    assert bw.pipeline.describe(run).texts is not None
    assert "Comparison of calibration texts" in (run.folder / "report.html").read_text()


def test_what_keeps_nothing_by_sequence_prices_no_text_alone(
    llama_tied: Path,
    texts: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    settings = small(llama_tied, target="integers", formats=("INT3_G32", "INT4_G32"), calibration=f"{texts[0]},{texts[1]}", sensitivity="importance")
    found = text_comparison(bw.pipeline.search(settings, tmp_path / "run", n_points=2, by=BY), 10**7)
    assert isinstance(found, TextComparison)
    assert [text.alone for text in found.texts] == [None, None]
    assert (found.experts, found.frequencies) == ((), ())


def test_one_text_is_compared_with_nothing(llama_tied: Path, tmp_path: Path) -> None:
    settings = small(llama_tied, target="integers", formats=("INT3_G32", "INT4_G32"))
    assert text_comparison(bw.pipeline.search(settings, tmp_path / "run", n_points=2, by=BY), 10**7) is None
