import numpy as np
import pytest

import bitwright as bw
from bitwright.pipeline import Run
from bitwright.pipeline.pricing.link import link_of
from bitwright.pipeline.pricing.run_space import uniforms
from bitwright.pipeline.reporting.run_summary import summarise
from bitwright.report import Quality, SizeLimit
from tests.fits import Fit

pytestmark = pytest.mark.slow


def test_candidates_are_what_was_named_and_all_that_was_measured(searched: Run) -> None:
    run, space = bw.open_run(searched.folder), searched.space
    named = {"knapsack": space.choice(dict.fromkeys(space.names(space.smallest()), "Q5_0"))}
    unmeasured = space.smallest().copy()
    unmeasured[0], unmeasured[3] = named["knapsack"][0], uniforms(run)["uniform Q8_0"][3]
    found = summarise(run, named=named | {"other": unmeasured}, chosen="other", limit=SizeLimit(123))
    n_measured, link = len(run.measurements), link_of(run)
    run.store.close()
    by_label = {c.label: c for c in found.candidates}
    assert len(found.candidates) == n_measured + 1
    assert by_label["other"].measured is None
    assert [c.label for c in found.candidates if c.chosen] == ["other"]
    assert by_label["other"].size_bytes == space.total_bytes(unmeasured)
    assert by_label["other"].summed == pytest.approx(run.summed(unmeasured))
    assert by_label["other"].predicted_nats == pytest.approx(link(run.summed(unmeasured)).nats_per_token)
    assert {"knapsack", "uniform Q4_0"} <= set(by_label), "a name that was given stands before that of the uniform it equals"
    assert by_label["uniform Q4_0"].kind == "uniform"
    assert isinstance(by_label["uniform Q4_0"].measured, Quality)
    assert found.budget == SizeLimit(123)


def test_figures_are_in_nats_and_bytes(searched: Run) -> None:
    run = bw.open_run(searched.folder)
    found = summarise(run, named=uniforms(run), chosen="uniform Q4_0", limit=None)
    factor = run.scale.factor
    np.testing.assert_allclose(found.table[run.space.offered], factor * run.table[run.space.offered])
    assert np.isnan(found.table[~run.space.offered]).all()
    assert found.front_sizes_bytes[0] == run.space.total_bytes(run.space.smallest())
    assert (np.diff(found.front_sizes_bytes) > 0).all()
    assert (np.diff(found.front_sums) < 0).all()
    np.testing.assert_array_equal(found.front_nats, link_of(run).nats(found.front_sums))
    assert (np.diff(found.front_nats) <= 0).all()
    assert found.original_bytes == run.original_bytes
    assert found.settings["calibration text"].startswith("sampled")
    assert found.settings["seed"] == "0"
    assert found.settings["source of the sensitivity"] == "Fisher information, shrunk (this project)"
    assert found.reference_perplexity > 1
    run.store.close()


def test_every_stage_of_a_fit_is_told_with_what_it_cost(fit_of_gguf: Fit) -> None:
    stages = {stage.name: stage for stage in fit_of_gguf.fitted.summary.stages}
    assert {"loading the model", "gradient sweep", "searching", "measuring candidates", "writing the file", "checking it in the engine"} <= set(
        stages
    )
    assert stages["gradient sweep"].n_tokens == 2 * 8 * 24  # forward and backward
    assert stages["measuring candidates"].n_tokens == len(fit_of_gguf.fitted.summary.candidates) * 4 * 24
    assert [course.method for course in fit_of_gguf.fitted.summary.courses] == ["auto"]
    assert all(stage.seconds > 0 and stage.peak_memory_bytes > 10**7 for stage in stages.values())
