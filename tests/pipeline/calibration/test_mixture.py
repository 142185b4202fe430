"""Calibration texts mixed into one: what is asked for, how many sequences each gives, and that the run knows which are whose."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bitwright as bw
from bitwright.compress import open_source
from bitwright.errors import TextError
from bitwright.pipeline.calibration.mixture import Share, parts_of, sequences_by_text, shares_in, text_names
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.progress import Silent
from tests.compress import tiny_models as tiny
from tests.runs import small
from tests.sentences import sentence


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Prose and code, neither of which comes twice."""
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    (folder / "prose.txt").write_text(" ".join(draw.choices(" ".join(tiny.TEXT).split(), k=900)), encoding="utf-8")
    (folder / "code.txt").write_text("".join(f"x = y + {draw.randrange(1000)}\n" for _ in range(400)), encoding="utf-8")
    return folder / "prose.txt", folder / "code.txt"


def bench(settings: bw.Settings, folder: Path) -> LoadedRun:
    return set_up(settings, folder, device="cpu", progress=Silent())


def test_a_number_behind_the_last_colon_is_a_weight() -> None:
    assert shares_in("a.txt") == (Share("a.txt", 1.0),)
    assert shares_in("a.txt:0.7, self:3") == (Share("a.txt", 0.7), Share("self", 3.0))
    assert shares_in("wiki:en:test:body,wiki:de:test:body:2") == (Share("wiki:en:test:body", 1.0), Share("wiki:de:test:body", 2.0))


@pytest.mark.parametrize(
    ("words", "told"),
    [("", "''"), (" , ", "','"), (":0.5", "':0.5'"), ("a:0", "of a is 0"), ("a:-1", "-1"), ("a:nan", "nan"), ("a,b,a:2", "a is named twice")],
)
def test_words_that_mix_nothing_are_refused(words: str, told: str) -> None:
    with pytest.raises(TextError) as caught:
        shares_in(words)
    sentence(caught.value, told.strip("'"))


def test_a_file_counts_once_by_whatever_name(texts: tuple[Path, Path], tmp_path: Path) -> None:
    prose, code = texts
    (tmp_path / "link.txt").symlink_to(prose)
    for other in (tmp_path / "link.txt", prose.parent / "." / ".." / prose.parent.name / prose.name):
        with pytest.raises(TextError) as caught:
            shares_in(f"{prose},{code},{other}:2")
        sentence(caught.value, "named twice")


def test_plans_are_not_judged_on_what_they_are_calibrated_on(llama_tied: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    prose, code = texts
    (tmp_path / "copy.txt").write_bytes(prose.read_bytes())
    (tmp_path / "hard.txt").hardlink_to(prose)
    for held_out in (prose, tmp_path / "copy.txt", tmp_path / "hard.txt"):
        with pytest.raises(TextError) as caught:
            bw.Settings(str(llama_tied), calibration=f"{code},{prose}:2", held_out=str(held_out))
        sentence(caught.value, held_out, "--held-out")
    assert bw.Settings(str(llama_tied), calibration=str(code), held_out=str(prose)).held_out == str(prose)


@given(st.integers(20, 500), st.lists(st.floats(0.2, 5.0), min_size=1, max_size=4))
def test_every_text_gives_its_share_to_within_a_sequence(total: int, weights: list[float]) -> None:
    counts = parts_of(total, [Share(f"text {i}", weight) for i, weight in enumerate(weights)])
    assert sum(counts) == total
    assert np.abs(np.array(counts) - total * np.array(weights) / sum(weights)).max() < 1


def test_a_share_of_nothing_is_refused(llama_tied: Path) -> None:
    with pytest.raises(TextError) as caught:
        bw.Settings(str(llama_tied), calibration="a.txt:100,b.txt", n_calibration=8)
    sentence(caught.value, "b.txt", "8")


def test_a_run_mixes_by_weight_and_knows_which_sequence_is_whose(llama_tied: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    prose, code = texts
    settings = small(llama_tied, calibration=f"{prose}:3,{code}", n_calibration=8, n_held_out=4)
    found = bench(settings, tmp_path / "o")
    tokens = found.texts.calibration
    rows = sequences_by_text(found.store)
    assert [len(of_text) for of_text in rows] == [6, 2]
    assert sorted(np.concatenate(rows).tolist()) == list(range(8))
    assert text_names(found.store) == ("prose.txt", "code.txt")
    decode = found.model.tokenizer.decode
    assert ["=" in decode(ids) for ids in tokens.ids] == [row in rows[1] for row in range(8)]
    assert tokens.text.startswith("6 of prose.txt (first")
    assert tokens.text.endswith("mixed (seed 0)")
    assert [("=" in decode(ids)) for ids in found.texts.held_out.ids] == [False, False, False, True]
    by_itself = bench(small(llama_tied, calibration=str(prose), n_calibration=6, n_held_out=3), tmp_path / "p").texts.calibration
    np.testing.assert_array_equal(np.sort(tokens.ids[rows[0]], axis=0), np.sort(by_itself.ids, axis=0))
    assert sequences_by_text(bench(small(llama_tied, calibration=str(prose)), tmp_path / "q").store) == []


def test_the_order_is_the_seed_s(llama_tied: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    prose, code = texts
    first, again, other = (
        bench(small(llama_tied, calibration=f"{prose},{code}", n_calibration=16, seed=seed), tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    np.testing.assert_array_equal(first.texts.calibration.ids, again.texts.calibration.ids)
    assert not np.array_equal(first.texts.calibration.ids, other.texts.calibration.ids)
    np.testing.assert_array_equal(np.sort(first.texts.calibration.ids, axis=0), np.sort(other.texts.calibration.ids, axis=0))


def test_the_model_s_own_text_may_be_one_of_them(llama_tied: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    found = bench(small(llama_tied, calibration=f"self,{texts[1]}", held_out=str(texts[0])), tmp_path / "o")
    assert "sampled from the model" in found.texts.calibration.text
    assert [len(of_text) for of_text in sequences_by_text(found.store)] == [4, 4]
    assert found.texts.held_out.text.startswith("prose.txt")


def test_a_text_too_short_for_its_share_is_refused(llama_tied: Path, texts: tuple[Path, Path], tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Once upon a time there was a little girl. " * 12, encoding="utf-8")
    with pytest.raises(TextError) as caught:
        _ = bench(small(llama_tied, calibration=f"{texts[0]},{short}", n_calibration=40), tmp_path / "o").texts
    sentence(caught.value, short, "of 20 sequences", "smaller weight")


def test_a_file_may_have_commas_and_colons_in_its_name(tmp_path: Path) -> None:
    for name in ("a,b.txt", "c:2", "d,e:3"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    words = f"{tmp_path}/a,b.txt,{tmp_path}/a,b.txt:0"
    with pytest.raises(TextError) as caught:
        shares_in(words)
    sentence(caught.value, f"{tmp_path}/a,b.txt is 0")
    assert shares_in(f"{tmp_path}/a,b.txt:3,{tmp_path}/c:2,self,{tmp_path}/d,e:3:0.5") == (
        Share(f"{tmp_path}/a,b.txt", 3.0),
        Share(f"{tmp_path}/c:2", 1.0),
        Share("self", 1.0),
        Share(f"{tmp_path}/d,e:3", 0.5),
    )


def test_weights_are_of_the_run_s_identity(llama_tied: Path, texts: tuple[Path, Path]) -> None:
    source, (prose, code) = open_source(str(llama_tied)), texts
    mixtures = (str(prose), f"{prose},{code}", f"{prose}:3,{code}", f"{prose}:3.0,{code}:1")
    found = [bw.Settings(str(llama_tied), calibration=words).identity(source)["calibration"] for words in mixtures]
    assert len(set(found)) == 3
    assert found[2] == found[3]
