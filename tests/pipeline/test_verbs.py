from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from gguf import GGUFReader

import bitwright as bw
from bitwright.compress import GgufSource, Model, applied, load
from bitwright.compress.codecs.packed_file import DIGEST_BYTES
from bitwright.errors import BudgetError, RunError, UserError
from bitwright.objectives import Store
from bitwright.pipeline import Run
from bitwright.pipeline.verbs import describe, write_plan
from bitwright.report import Quality
from bitwright.spaces import Plan
from bitwright.written_files import RECORD
from tests.fits import Fit
from tests.runs import BRIEF, UNSEARCHED, leftovers, plan_without_paths, small
from tests.sentences import sentence
from tests.work import fit_elsewhere

pytestmark = pytest.mark.slow

# --- what a fit leaves


def test_a_fit_leaves_a_plan_a_model_a_report_and_its_measurements(fit: Fit) -> None:
    names = {path.name for path in fit.folder.iterdir()}
    assert {"plan.json", "model.gguf", "report.html", "run.sqlite", "imatrix.gguf", "plan.tensor-types.txt"} <= names
    assert not leftovers(fit.folder)
    assert bw.read_plan(fit.folder / "plan.json") == fit.fitted.plan
    assert (fit.fitted.model, fit.fitted.report) == (fit.folder / "model.gguf", fit.folder / "report.html")
    assert "</html>" in fit.fitted.report.read_text(encoding="utf-8")


def test_the_file_is_as_large_as_planned_and_within_the_budget(fit: Fit) -> None:
    found = fit.fitted.model.stat().st_size
    assert found == fit.fitted.plan.size_bytes <= fit.budget.size_bytes(fit.fitted.plan.model.n_weights)
    assert fit.fitted.check.size_found == fit.fitted.check.size_promised == found


def test_the_budget_is_filled_as_far_as_formats_allow(fit: Fit) -> None:
    """No unit could have a better format by the table in what the knapsack leaves."""
    run = bw.open_run(fit.folder)
    space, table = run.space, run.table
    (choice,) = [candidate.choice for candidate in fit.fitted.summary.candidates if candidate.label == "knapsack"]
    room = 8 * fit.budget.size_bytes(space.n_weights) - int(space.total_bits(choice))
    for u, f in np.argwhere(space.offered):
        if table[u, f] < table[u, choice[u]]:
            assert space.size_bits[u, f] - space.size_bits[u, choice[u]] > room
    run.store.close()


def test_every_tensor_has_its_planned_type(fit: Fit) -> None:
    plan, original = fit.fitted.plan, {tensor.name: tensor.stored for tensor in load(fit.settings.model).tensors}
    found = {str(tensor.name): tensor.tensor_type.name for tensor in GGUFReader(fit.fitted.model).tensors}
    assert found == original | plan.formats
    assert sum(name.endswith("norm.weight") for name in set(found) - set(plan.formats)) == 5
    assert len(set(plan.formats.values())) > 1  # a plan that mixes nothing would say little


def test_the_file_holds_the_very_bytes_that_were_measured(fit: Fit) -> None:
    source = GgufSource(fit.fitted.model)
    for tensor in source.tensors:
        if tensor.name in fit.fitted.plan.formats:
            assert source.stored(tensor).tobytes() == (fit.folder / "levels" / f"{tensor.name}.{tensor.stored}").read_bytes()[:-DIGEST_BYTES]


def test_the_promised_divergence_is_that_of_the_file(fit: Fit) -> None:
    """Read back from the file and computed directly on the run's held-out tokens."""
    store = Store(fit.folder / "run.sqlite")
    ids = torch.from_numpy(store.array("held-out tokens").astype(np.int64))
    store.close()
    model, built = load(fit.settings.model), GgufSource(fit.fitted.model)
    p = log_probabilities(model, ids)
    with applied(model, {tensor.name: lambda tensor=tensor: built.read(tensor) for tensor in built.tensors if tensor.name in model.pieces}):
        q = log_probabilities(model, ids)
    nats = (p.exp() * (p - q)).sum(dim=-1)
    promise = fit.fitted.plan.divergence
    assert promise.nats_per_token == pytest.approx(float(nats.mean()), rel=1e-2)
    assert promise.nats_per_token > 0.01
    assert promise.standard_error == pytest.approx(float(nats.mean(dim=1).std() / len(ids) ** 0.5), rel=0.05)
    assert (promise.n_tokens, promise.basis) == (ids.numel(), "measured")


def log_probabilities(model: Model, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.module(ids, use_cache=False).logits.double().log_softmax(dim=-1)


def test_the_best_of_what_was_measured_is_chosen(fit: Fit) -> None:
    measured = {c.label: c.measured for c in fit.fitted.summary.candidates}
    assert all(isinstance(quality, Quality) for quality in measured.values())
    uniforms = [quality.nats_per_token for label, quality in measured.items() if label.startswith("uniform") and isinstance(quality, Quality)]
    assert len(uniforms) == 1  # the next one is priced at more than three times it
    assert fit.fitted.plan.divergence.nats_per_token <= min(uniforms)
    (chosen,) = [c for c in fit.fitted.summary.candidates if c.chosen]
    assert chosen.size_bytes == fit.fitted.plan.size_bytes
    assert isinstance(chosen.measured, Quality)
    assert chosen.measured.nats_per_token == fit.fitted.plan.divergence.nats_per_token


def test_the_engine_agrees(fit: Fit) -> None:
    check = fit.fitted.check
    assert check.broken == ()
    assert check.tokenizes_alike
    assert check.in_engine.nats_per_token == pytest.approx(check.in_torch.nats_per_token, rel=0.25)


def test_a_folder_and_its_gguf_are_planned_alike(fit_of_folder: Fit, fit_of_gguf: Fit) -> None:
    first, second = fit_of_folder.fitted, fit_of_gguf.fitted
    assert first.plan.formats == second.plan.formats
    assert first.plan.divergence == second.plan.divergence
    assert first.plan.model.fingerprint == second.plan.model.fingerprint


def test_a_finished_fit_is_only_built_again(fit_of_gguf: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fit_of_gguf.fitted.model.read_bytes()
    for work in (
        "pricing.run_space.distortion_of",
        "pricing.run_space.priced_twice",
        "loaded_run.sample_with_importance",
        "loaded_run.collect_importance",
    ):
        monkeypatch.setattr(f"bitwright.pipeline.{work}", refuse)
    monkeypatch.setattr("bitwright.pipeline.loaded_run.Reference", refuse)
    again = bw.fit(fit_of_gguf.settings, fit_of_gguf.budget, fit_of_gguf.folder, by=BRIEF)
    assert again.plan == fit_of_gguf.fitted.plan
    assert again.model.read_bytes() == before


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("work was done that was done before, or that must not be begun")


def test_the_same_seed_gives_the_same_plan_in_another_process(fit_of_gguf: Fit, tmp_path: Path) -> None:
    fit_elsewhere(fit_of_gguf.settings, fit_of_gguf.budget, tmp_path / "o")
    assert plan_without_paths(tmp_path / "o" / "plan.json") == plan_without_paths(fit_of_gguf.folder / "plan.json")
    assert (tmp_path / "o" / "model.gguf").read_bytes() == fit_of_gguf.fitted.model.read_bytes()


def test_another_seed_measures_on_other_text(fit_of_gguf: Fit, tmp_path: Path) -> None:
    texts = []
    for seed in (0, 1):
        run = bw.pipeline.search(small(fit_of_gguf.settings.model, seed=seed, sensitivity="weight"), tmp_path / str(seed), n_points=2, by=UNSEARCHED)
        texts.append(run.store.array("held-out tokens").tolist())
        run.store.close()
    assert texts[0] != texts[1]


# --- step by step


def test_search_plan_build_and_check_one_after_the_other(searched: Run, tmp_path: Path) -> None:
    folder = Path(copytree(searched.folder, tmp_path / "run"))  # planning measures more, which other tests need not see
    run = bw.open_run(folder)
    plans: list[Plan] = []
    for budget in ("6bpw", "7.5bpw"):
        made, summary = bw.plan(run, bw.parse_budget(budget))
        plans.append(made)
        assert made.size_bytes <= bw.parse_budget(budget).size_bytes(made.model.n_weights)
        assert made.found.budget == budget
        assert [c.choice.tolist() for c in summary.candidates if c.chosen] == [run.space.choice(made.formats).tolist()]
    run.store.close()
    assert plans[0].size_bytes < plans[1].size_bytes
    assert plans[1].divergence.nats_per_token < plans[0].divergence.nats_per_token
    for i, made in enumerate(plans):
        path = tmp_path / f"{i}.gguf"
        write_plan(made, tmp_path / f"{i}.json")
        bw.build(bw.read_plan(tmp_path / f"{i}.json"), path)
        assert path.stat().st_size == made.size_bytes
        found = bw.verify(made, path)
        assert found.broken == ()
    assert not leftovers(tmp_path)


def test_a_search_measures_points_of_the_front_and_uniforms(searched: Run) -> None:
    run = bw.open_run(searched.folder)
    summary = describe(run)
    run.store.close()
    labels = [c.label for c in summary.candidates]
    assert len(labels) >= 3
    assert any(label.startswith("front") for label in labels)
    # what is stored already is a format of the menu's neighbours too, so the finest uniform may be the last point of the front
    assert {"uniform Q4_0", "uniform Q5_0"} <= set(labels)
    assert not any(c.measured is None for c in summary.candidates)
    front = sorted((c for c in summary.candidates if c.label.startswith("front")), key=lambda c: c.size_bytes)
    nats = [c.measured.nats_per_token for c in front if isinstance(c.measured, Quality)]
    assert nats == sorted(nats, reverse=True)
    assert (searched.folder / "report.html").stat().st_size > 10_000


def test_a_plan_that_was_measured_needs_no_model(searched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run = bw.open_run(searched.folder)
    first, _ = bw.plan(run, bw.parse_budget("6.2bpw"))
    monkeypatch.setattr("bitwright.pipeline.loaded_run.load", refuse)
    again, _ = bw.plan(run, bw.parse_budget("6.2bpw"))
    run.store.close()
    assert again == first


# --- budgets


def test_a_budget_above_the_original_is_refused_before_text_is_made(gguf_256: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.pipeline.loaded_run.sample_with_importance", refuse)
    for budget in ("100MB", f"{gguf_256.stat().st_size}B", "17bpw"):
        with pytest.raises(BudgetError) as refused:
            bw.fit(small(gguf_256), bw.parse_budget(budget), tmp_path / "o")
        sentence(refused.value, budget, f"{gguf_256.stat().st_size / 1e6:.1f} MB", "smaller budget")


def test_a_budget_below_the_smallest_file_is_refused_before_anything_is_quantized(
    gguf_256: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(gguf_256, formats=("Q8_0", "Q4_0"))
    with monkeypatch.context() as patched:
        patched.setattr("bitwright.pipeline.pricing.price_table.sampled_distortion", refuse)
        with pytest.raises(BudgetError) as refused:
            bw.fit(settings, bw.parse_budget("300kB"), tmp_path / "o")
    message = sentence(refused.value, "300,000 bytes")
    smallest = next(int(word.replace(",", "")) for word in message.split() if word.replace(",", "").isdigit())
    assert smallest > 300_000
    fitted = bw.fit(settings, bw.parse_budget(f"{smallest}B"), tmp_path / "o")
    assert fitted.plan.size_bytes == smallest
    assert set(fitted.plan.formats.values()) == {"Q4_0"}


def test_a_plan_for_a_budget_that_cannot_be_is_refused(searched: Run) -> None:
    run = bw.open_run(searched.folder)
    for budget in ("10kB", "1GB"):
        with pytest.raises(BudgetError):
            bw.plan(run, bw.parse_budget(budget))
    run.store.close()


# --- runs


def test_a_run_that_measured_nothing_has_no_front(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.pipeline.verbs.measure", lambda *_: None)
    with pytest.raises(RunError) as refused:
        bw.pipeline.search(small(llama_tied, sensitivity="weight"), tmp_path / "o", n_points=2, by=UNSEARCHED)
    sentence(refused.value, tmp_path / "o")


def test_a_device_that_is_not_there_is_refused_before_the_model_is_loaded(fit_of_gguf: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.pipeline.loaded_run.load", refuse)
    monkeypatch.setattr("bitwright.pipeline.verbs.load", refuse)
    for device in ("banana", "meta", "cuda:99"):
        with pytest.raises(UserError) as refused:
            bw.fit(fit_of_gguf.settings, fit_of_gguf.budget, tmp_path / "o", device=device)
        sentence(refused.value, f"'{device}'", "--device")
        with pytest.raises(UserError):
            bw.verify(fit_of_gguf.fitted.plan, fit_of_gguf.fitted.model, device=device)


def test_lines_for_llama_quantize_are_written_for_llama_cpp_alone(fit_of_folder: Fit, tmp_path: Path) -> None:
    made = fit_of_folder.fitted.plan
    assert write_plan(made, tmp_path / "a.json") == (tmp_path / "a.json", tmp_path / "a.tensor-types.txt")
    assert write_plan(made.model_copy(update={"target": "integers"}), tmp_path / "b.json") == (tmp_path / "b.json",)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RECORD, "a.json", "a.tensor-types.txt", "b.json"]
