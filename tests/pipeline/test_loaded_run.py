import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

import bitwright as bw
from bitwright.compress import read_imatrix, write_imatrix
from bitwright.errors import ModelError, RunError, TextError
from bitwright.objectives import collect_importance
from bitwright.pipeline import Run
from bitwright.pipeline.loaded_run import LoadedRun, set_up, timed
from bitwright.pipeline.planning.held_out import measure
from bitwright.pipeline.pricing.run_space import price, uniforms
from bitwright.pipeline.run import QUANTIZED
from bitwright.progress import Silent
from tests.compress import tiny_models as tiny
from tests.compress.models.checkpoints.quantized.test_gptq import folder_of
from tests.runs import leftovers, small
from tests.sentences import sentence

pytestmark = pytest.mark.slow


def bench(settings: bw.Settings, folder: Path) -> LoadedRun:
    return set_up(settings, folder, device="cpu", progress=Silent())


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    words = random.Random(0).choices(" ".join(tiny.TEXT).split(), k=600)  # no passage comes twice
    path.write_text(" ".join(words), encoding="utf-8")
    return path


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("this was done before")


def test_texts_and_importance_are_made_once(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench(small(llama_tied), tmp_path / "o")
    ids, importance = first.texts.held_out.ids, first.levels.importance
    for work in ("sample_with_importance", "sampled_importance", "collect_importance"):
        monkeypatch.setattr(f"bitwright.pipeline.loaded_run.{work}", refuse)
    again = bench(small(llama_tied), tmp_path / "o")
    np.testing.assert_array_equal(again.texts.held_out.ids, ids)
    assert again.texts.calibration.text == first.texts.calibration.text
    for name, values in importance.items():
        np.testing.assert_array_equal(again.levels.importance[name], values)


def test_the_importance_matrix_of_the_model_s_own_text_is_seen_while_it_is_sampled(
    llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(small(llama_tied), tmp_path / "o")
    expected = collect_importance(made.whole, made.texts.calibration, progress=Silent())
    monkeypatch.setattr("bitwright.pipeline.loaded_run.collect_importance", refuse)
    found = made.levels.importance
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4)
    path = tmp_path / "o" / "imatrix.gguf"
    kept = path.read_bytes()
    path.unlink()
    _ = bench(small(llama_tied), tmp_path / "o").levels  # made again from the run
    assert path.read_bytes() == kept


def test_text_of_the_user_s_is_taken_and_split(llama_tied: Path, tmp_path: Path, text: Path) -> None:
    found = bench(small(llama_tied, calibration=str(text)), tmp_path / "o").texts
    assert (found.calibration.ids.shape, found.held_out.ids.shape) == ((8, 24), (4, 24))
    assert found.calibration.text.startswith("text.txt (first")
    assert not {tuple(row) for row in found.calibration.ids.tolist()} & {tuple(row) for row in found.held_out.ids.tolist()}


class Heard(Silent):
    """Progress that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def test_a_source_that_is_quantized_is_told(llama_tied: Path, tmp_path: Path) -> None:
    folder_of(llama_tied, tmp_path / "gptq")
    heard = Heard()
    run = set_up(small(tmp_path / "gptq"), tmp_path / "o", device="cpu", progress=heard)
    assert heard.notes == ["The source has 4-bit weights (gptq): a finer format stores its rounding too."]
    assert run.store.text(QUANTIZED) == "4-bit weights (gptq)"


def test_too_little_text_is_told(llama_tied: Path, tmp_path: Path, text: Path) -> None:
    for _ in range(2):  # the second time from the run
        heard = Heard()
        bench = set_up(small(llama_tied, calibration=str(text), n_calibration=10**6), tmp_path / "o", device="cpu", progress=heard)
        n_sequences = len(bench.texts.calibration.ids)
        assert len(heard.notes) == 2
        assert f"calibration text has {n_sequences:,} of the 1,000,000 sequences" in heard.notes[0]
    enough = Heard()
    _ = set_up(small(llama_tied, calibration=str(text)), tmp_path / "p", device="cpu", progress=enough).texts
    assert not enough.notes


def test_a_chat_with_a_token_that_the_model_has_not_is_refused(llama_tied: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama_tied, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    added = [f"<|{i}|>" for i in range(384 - len(tokenizer))]  # as many as the embedding has rows for
    tokenizer.add_special_tokens({"additional_special_tokens": [*added, "<|turn|>"]})
    tokenizer.chat_template = "{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    chat = tmp_path / "chat.jsonl"
    chat.write_text(json.dumps({"messages": [{"role": "user", "content": "Once upon a time " * 400}]}), encoding="utf-8")
    for words in ({"calibration": str(chat)}, {"held_out": str(chat)}):
        with pytest.raises(TextError) as refused:
            _ = bench(small(folder, **words), tmp_path / "o").texts
        sentence(refused.value, "chat.jsonl", "<|turn|>", "384 rows")


def test_held_out_text_may_be_another(llama_tied: Path, tmp_path: Path, text: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("def add(x, y): return x + y\n" * 60, encoding="utf-8")
    found = bench(small(llama_tied, calibration=str(text), held_out=str(other)), tmp_path / "o").texts
    assert found.calibration.text.startswith("text.txt")
    assert found.held_out.text.startswith("other.txt")
    assert "return" in bench(small(llama_tied), tmp_path / "p").model.tokenizer.decode(found.held_out.ids[0])
    sampled = bench(small(llama_tied, held_out=str(other)), tmp_path / "q").texts
    assert sampled.calibration.text.startswith("sampled")
    np.testing.assert_array_equal(sampled.held_out.ids, found.held_out.ids)


def test_text_that_cannot_be_used_is_told_and_the_folder_stays_usable(llama_tied: Path, tmp_path: Path, text: Path) -> None:
    short, missing = tmp_path / "short.txt", tmp_path / "missing.txt"
    short.write_text("Once", encoding="utf-8")
    for wrong in (small(llama_tied, calibration=str(short)), small(llama_tied, held_out=str(short)), small(llama_tied, calibration=str(missing))):
        with pytest.raises(TextError) as refused:
            _ = bench(wrong, tmp_path / "o").levels
        sentence(refused.value, "short.txt" if wrong.calibration != str(missing) else missing)
    assert bench(small(llama_tied, calibration=str(text)), tmp_path / "o").texts.held_out.n_tokens == 96
    assert not leftovers(tmp_path)


def test_other_settings_are_refused_by_name(llama_tied: Path, llama_96: Path, tmp_path: Path) -> None:
    settings = small(llama_tied)
    _ = bench(settings, tmp_path / "o").levels
    for other, values in (
        (replace(settings, seed=5), ("seed was 0 and is now 5",)),
        (replace(settings, sequence_length=25, formats=()), ("8 + 4 of 24 tokens", "8 + 4 of 25 tokens", "formats was Q4_0 Q8_0 and is now all")),
        (replace(settings, model=str(llama_96)), ("model was ",)),
    ):
        with pytest.raises(RunError) as refused:
            bench(other, tmp_path / "o")
        sentence(refused.value, tmp_path / "o", "--out", *values)
    assert bench(settings, tmp_path / "o").settings == settings.on_device("cpu")


def test_an_importance_matrix_of_the_user_s_is_taken(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collected = bench(small(llama_tied), tmp_path / "a").levels.importance
    write_imatrix(tmp_path / "own.gguf", {name: 2 * values for name, values in collected.items()}, text="mine")
    monkeypatch.setattr("bitwright.pipeline.loaded_run.collect_importance", refuse)
    found = bench(small(llama_tied, imatrix=str(tmp_path / "own.gguf")), tmp_path / "b").levels.importance
    assert found.keys() == collected.keys()
    for name, values in collected.items():
        np.testing.assert_allclose(found[name], 2 * values, rtol=1e-6)


def test_an_importance_matrix_that_is_none_is_refused(llama_tied: Path, tmp_path: Path, text: Path) -> None:
    with pytest.raises(ModelError) as refused:
        _ = bench(small(llama_tied, imatrix=str(text)), tmp_path / "o").levels
    sentence(refused.value, text, "importance matrix")
    assert not (tmp_path / "o" / "imatrix.gguf").exists()


def test_the_importance_matrix_that_is_kept_is_the_one_that_is_used(llama_tied: Path, tmp_path: Path) -> None:
    made = bench(small(llama_tied), tmp_path / "o")
    used = made.levels.importance
    kept = read_imatrix(tmp_path / "o" / "imatrix.gguf", made.model.tensors)
    assert kept.keys() == used.keys()
    assert all((kept[name] == used[name]).all() for name in kept)


def measured(run: Run) -> list[tuple[object, ...]]:
    """Return every measurement of the run, with the seconds that it took."""
    return [(m.choice, m.estimates, m.by_sequence.tolist(), m.n_sequences, m.n_tokens, m.seconds) for m in run.measurements.values()]


def test_only_what_was_not_measured_is_measured(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench(small(llama_tied, sensitivity="weight"), tmp_path / "o")
    run = price(made)
    choices = list(uniforms(run).values())[:2]
    measure(made, run, choices[:1])
    first = measured(run)
    measure(made, run, choices)
    found = measured(run)
    assert found[:1] == first
    assert [choice for choice, *_ in found] == [tuple(choice.tolist()) for choice in choices]
    monkeypatch.setattr("bitwright.pipeline.loaded_run.Reference", refuse)
    measure(made, run, choices)
    assert measured(run) == found
    assert not list((tmp_path / "o").glob("*.f16"))


def test_a_stage_that_fails_is_not_counted(llama_tied: Path, tmp_path: Path) -> None:
    store = bench(small(llama_tied), tmp_path / "o").store
    with timed(store, "works", 5):
        pass
    with pytest.raises(ZeroDivisionError), timed(store, "fails"):
        _ = 1 / 0
    found = {name: (tokens, peak) for name, _, tokens, peak in store.stages()}
    assert "fails" not in found
    assert found["works"][0] == 5
    assert found["works"][1] > 50_000_000  # bytes: this very process
