"""Refusals by options, files and headers alone: every test here has a model whose weights cannot be read."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

import bitwright as bw
from bitwright.compress import GgufSource, Headers, StoredTensor, name_with, open_headers, open_source
from bitwright.devices.device import read_device
from bitwright.engines import as_held, engine_named, target_named
from bitwright.engines.by_name import container_of
from bitwright.errors import BudgetError, DeviceError, LibraryError, ModelError, OutputError, PlanError, RunError, TextError, UserError
from bitwright.methods.by_name import method_named
from bitwright.objectives import CostObjective, Store
from bitwright.pipeline import Conditions, Memory, Search
from bitwright.pipeline.before_loading import require_fittable, require_resumable, require_searchable
from bitwright.pipeline.channel_order import order_channels
from bitwright.pipeline.exchange import import_plan
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.planning.cost_limits import NO_CONDITIONS, CostCeiling
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.pipeline.searching.search import named_objectives
from bitwright.pipeline.smallest import fit_smallest
from bitwright.progress import Silent
from tests.runs import small
from tests.sentences import sentence

BY = Search(method_named("auto"), evaluations=0)


def read(*_: object, **__: object) -> None:
    raise AssertionError("a weight was read")


@pytest.fixture
def unread(llama_256: Path, llama_96: Path, gguf_256: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are made, and from then on no weight can be read."""
    for owner, name in ((StoredTensor, "read"), (GgufSource, "read"), (GgufSource, "stored"), (GgufSource, "part")):
        monkeypatch.setattr(owner, name, read)
    monkeypatch.setattr("bitwright.pipeline.loaded_run.load", read)
    monkeypatch.setattr("bitwright.pipeline.channel_order.load", read)


@pytest.fixture(params=["llama_256", "gguf_256"])
def model(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def fit(settings: bw.Settings, out: Path, limit: str = "6bpw", conditions: Conditions = NO_CONDITIONS, **words: Any) -> None:
    bw.fit(settings, bw.parse_budget(limit), out, conditions=conditions, **words)


Case = tuple[type[UserError], Callable[[Path, Path], None], tuple[str, ...]]
CASES: dict[str, Case] = {
    "a budget below the smallest file": (BudgetError, lambda m, o: fit(small(m), o, "1kB"), ("smallest file", "1,000 bytes")),
    "a budget above the original": (BudgetError, lambda m, o: fit(small(m), o, "1GB"), ("1000.0 MB", "the original has")),
    "experts that go named as a format": (
        UserError,
        lambda m, o: fit(small(m, target="native", formats=("INT4_G32", "DROP")), o),
        ("DROP", "--formats", "--structure experts"),
    ),
    "a method of experts where they go as formats": (
        UserError,
        lambda m, o: fit(small(m, target="native", formats=(), structure=("experts",), structure_method="collaborative"), o),
        ("native", "collaborative", "--structure experts"),
    ),
    "channels that go named as a format": (
        UserError,
        lambda m, o: fit(small(m, target="native-channels", formats=("INT4_G32", "PRUNE")), o),
        ("PRUNE", "--formats", "--structure channels"),
    ),
    "fewer weights for an engine that reads none": (
        UserError,
        lambda m, o: fit(small(m, target="transformers", formats=("W4_G64", "INT4_2OF4")), o),
        ("transformers has no format 'INT4_2OF4'", "neither fewer weights nor pairs of low rank", "--target native"),
    ),
    "a mask of a share that there is not": (
        UserError,
        lambda m, o: fit(small(m, target="native", formats=("INT4_S100",)), o),
        ("native has no format 'INT4_S100'",),
    ),
    "a mask on a format that has none": (
        UserError,
        lambda m, o: fit(small(m, target="native", formats=("PRUNE_LATER_2OF4",)), o),
        ("native has no format 'PRUNE_LATER_2OF4'", "_2OF4"),
    ),
    "a context beyond the model": (
        UserError,
        lambda m, o: bw.fit(small(m), Memory(bw.parse_budget("1GB"), 4096), o),  # type: ignore[func-returns-value]
        ("4,096 tokens", "128"),
    ),
    "a sequence beyond the model": (UserError, lambda m, o: fit(small(m, sequence_length=129), o), ("129 tokens", "128", "--sequence-length")),
    "a pattern that keeps nothing": (ModelError, lambda m, o: fit(small(m, skip=("no_such*",)), o), ("'no_such*'",)),
    "a profile of another engine": (
        DeviceError,
        lambda m, o: fit(small(m, target="native", formats=()), o, conditions=limited(CostObjective.SECONDS)),
        ("llama.cpp", "native"),
    ),
    "seconds without a profile": (
        DeviceError,
        lambda m, o: fit(small(m), o, conditions=Conditions((CostCeiling(CostObjective.SECONDS, 1.0),))),
        ("--profile",),
    ),
    "a target that is no engine's": (PlanError, lambda m, o: fit(small(m, target="integers", formats=()), o), ("integers",)),
    "a Python that is none": (UserError, lambda m, o: fit(small(m), o, engine_python="/no/python"), ("--engine-python",)),
    "a device that is none": (UserError, lambda m, o: fit(small(m), o, device="cuda:99"), ("cuda:99",)),
    "a text that is not there": (TextError, lambda m, o: fit(small(m, calibration=f"{o}.txt"), o), (".txt",)),
    "a method that decides about experts": (UserError, lambda m, o: fit(small(m), o, by=search("mc-moe")), ("mc-moe", "mixture")),
    "a method that drops experts": (
        UserError,
        lambda m, o: fit(small(m, target="native", formats=("INT4_G32",)), o, by=search("collaborative")),
        ("--structure experts",),
    ),
    "a step for routers": (UserError, lambda m, o: fit(small(m, steps=("router-calibration",)), o), ("router-calibration", "no routers")),
    "an objective of routers": (UserError, lambda m, o: fit(small(m), o, by=search("auto", "router-shift")), ("router-shift", "no routers")),
    "cache types for a method of weights": (
        UserError,
        lambda m, o: fit(small(m, cache_types="q8_0"), o, by=search("hawq")),
        ("hawq", "--cache-types"),
    ),
    "a ceiling for a method without": (
        UserError,
        lambda m, o: fit(small(m), o, by=search("random"), conditions=limited(CostObjective.SECONDS)),
        ("random", "--at-most"),
    ),
    "an output below a file": (OutputError, lambda m, o: fit(small(m), m / "config.json" / "o" if m.is_dir() else m / "o"), ("--out",)),
}


def search(method: str, objectives: str = "") -> Search:
    return Search(method_named(method), objectives=named_objectives(objectives), evaluations=0)


def limited(objective: CostObjective) -> Conditions:
    return Conditions((CostCeiling(objective, 1.0),), device=read_device("raspberry-pi-5-8gb"))


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize("case", CASES)
def test_it_is_told_before_a_weight_is_read(model: Path, tmp_path: Path, case: str) -> None:
    kind, asked, said = CASES[case]
    with pytest.raises(kind) as refused:
        asked(model, tmp_path / "out")
    sentence(refused.value, *said)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unread")
def test_a_menu_that_fits_no_tensor(llama_96: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        fit(small(llama_96, formats=("Q4_K",)), tmp_path / "out")
    sentence(refused.value, "Q4_K", "96, 192", "--formats")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": null}', "null"),
        ("a.json", "[1]", "a number"),
        ("a.csv", "text\na", "sheet"),
        ("a.txt", " ", "empty"),
    ],
)
@pytest.mark.parametrize("role", ["calibration", "held_out"])
def test_texts_are_looked_at_first(llama_256: Path, tmp_path: Path, role: str, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    settings = replace(small(llama_256), **{role: str(tmp_path / name)})  # type: ignore[arg-type]
    for ask in (
        lambda: bw.pipeline.search(settings, tmp_path / "o"),
        lambda: fit(settings, tmp_path / "o"),
        lambda: import_plan(settings, tmp_path / "plan", "mlx", tmp_path / "o"),
        lambda: order_channels(str(llama_256), settings.calibration, tmp_path / "o", length=24) if role == "calibration" else fit(settings, tmp_path),
    ):
        with pytest.raises(TextError) as refused:
            ask()
        sentence(refused.value, tmp_path / name, said)


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in, with a long text, one of a few sequences, and one of less than a sequence."""
    for name, n_repeats in (("long", 200), ("few", 4), ("short", 0)):
        (tmp_path / f"{name}.txt").write_text("one " + "once upon a time there was a dog " * n_repeats, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"calibration": "short.txt"}, ("4 sequences of 24 tokens", "short.txt holds 0", "--sequence-length")),
        ({"held_out": "short.txt"}, ("2 sequences of 24 tokens", "short.txt holds 0")),
        ({"calibration": "long.txt:1,few.txt:1", "n_calibration": 64}, ("few.txt has", "of 32 sequences", "--calibration-sequences")),
        ({"calibration": "long.txt,few.txt,short.txt", "n_held_out": 2}, ("gives none of 2", "number of sequences")),
    ],
)
def test_texts_that_are_too_short_are_told_first(words: dict[str, Any], said: tuple[str, ...], model: Path, texts: Path) -> None:
    settings = small(model, **words)
    for verb in (
        lambda: bw.pipeline.search(settings, texts / "o"),
        lambda: fit(settings, texts / "o"),
        lambda: import_plan(settings, texts / "long.txt", "llama-quantize", texts / "o"),
    ):
        with pytest.raises(TextError) as refused:
            verb()
        sentence(refused.value, *said)
    assert not (texts / "o").exists()


@pytest.mark.usefixtures("unread")
def test_channels_are_sorted_on_enough_text_of_a_folder(model: Path, texts: Path) -> None:
    name = "short.txt" if model.is_dir() else "long.txt"
    with pytest.raises(UserError) as refused:
        order_channels(str(model), name, texts / "o", length=24)
    sentence(refused.value, "short.txt holds 0" if model.is_dir() else "is a GGUF file")


@pytest.mark.usefixtures("unread")
def test_words_that_the_model_does_not_know_are_told_first(llama_256: Path, texts: Path) -> None:
    folder = Path(shutil.copytree(llama_256, texts / "model"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    n_rows = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    assert tokenizer.add_tokens(["<tool>"] + [f"<{i}>" for i in range(n_rows - len(tokenizer))])
    tokenizer.add_tokens(["<beyond>"])
    tokenizer.save_pretrained(folder)
    (texts / "chat.txt").write_text("<beyond>" + "once upon a time " * 200, encoding="utf-8")
    (texts / "tools.txt").write_text("once upon a time <tool> " * 200, encoding="utf-8")
    for words in ({"calibration": "chat.txt"}, {"held_out": "chat.txt"}, {"calibration": "long.txt,chat.txt"}):
        with pytest.raises(TextError) as refused:
            bw.pipeline.search(small(folder, **words), texts / "o")
        sentence(refused.value, "chat.txt", "<beyond>", f"{n_rows:,} rows")
    require_searchable(small(folder, calibration="tools.txt"), texts / "o", by=BY, conditions=NO_CONDITIONS, device="cpu")


@pytest.mark.usefixtures("unread")
def test_a_rule_without_a_tensor_is_told_first(model: Path, texts: Path) -> None:
    (texts / "types.txt").write_text("attn_q=q8_0\nno_such=q4_0\n", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        import_plan(small(model), texts / "types.txt", "llama-quantize", texts / "o")
    sentence(refused.value, "no_such")


@pytest.mark.usefixtures("unread")
@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("", ("must quantize a tensor", "all 16 matrices")),
        ("attn_q=q8_0\nattn_k=iq4_xs", ("cannot hold IQ4_XS", "attn_k")),
        ("attn_q=q8_0\u00a0attn_k=q8_0", ("a type of ggml",)),
    ],
)
def test_rules_that_cannot_be_followed_are_told_first(llama_96: Path, texts: Path, rules: str, said: tuple[str, ...]) -> None:
    (texts / "types.txt").write_text(rules, encoding="utf-8")
    with pytest.raises(UserError) as refused:
        import_plan(small(llama_96), texts / "types.txt", "llama-quantize", texts / "o")
    sentence(refused.value, *said)


@pytest.mark.usefixtures("unread")
def test_another_way_to_go_on_with_a_run_is_told_first(llama_256: Path, tmp_path: Path) -> None:
    settings = small(llama_256).on_device("cpu")
    with closing(Store(tmp_path / "o" / "run.sqlite")) as store:
        store.check_settings(settings.identity(Headers("m", "llama", (), ())))
        store.put_array("table", np.zeros(1))
    for words in ({"target": "native", "formats": ()}, {"seed": 1}, {"sequence_length": 16}, {"split_max_bytes": 10**6}, {"dtype": "bfloat16"}):
        with pytest.raises(RunError) as refused:
            fit(small(llama_256, **words), tmp_path / "o")  # type: ignore[arg-type]
        sentence(refused.value, "the settings it began with")
    require_resumable(settings, tmp_path / "o")


@pytest.mark.usefixtures("unread")
def test_a_way_to_a_gguf_file_is_for_llama_cpp(llama_256: Path, gguf_256: Path, gguf_quantized: Path, tmp_path: Path) -> None:
    for target, file, said in (
        ("native", gguf_256, "llama.cpp alone"),
        ("transformers", gguf_256, "llama.cpp alone"),
        ("llama.cpp", gguf_quantized, "floats"),
    ):
        with pytest.raises(UserError) as refused:
            fit(small(name_with(str(llama_256), gguf=str(file), converter=""), target=target, formats=()), tmp_path / "o")  # type: ignore[arg-type]
        sentence(refused.value, file, said)


@pytest.mark.usefixtures("unread")
def test_libraries_are_looked_for_first(llama_256: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitwright.objectives.text.documents.find_spec", lambda _: None)
    monkeypatch.setattr("bitwright.engines.compressed_tensors.reload.importlib.util.find_spec", lambda _: None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for settings, said in (
        (small(llama_256, calibration="org/words"), "datasets"),
        (small(llama_256, calibration=str(tmp_path / "a.parquet")), "pyarrow"),
        (small(llama_256, target="transformers", formats=()), "compressed-tensors"),
    ):
        with pytest.raises(LibraryError) as refused:
            fit(settings, tmp_path / "o")
        sentence(refused.value, said)
    with pytest.raises(LibraryError):
        fit_smallest(small(llama_256, target="transformers", formats=()), Conditions(nats_at_most=0.1), tmp_path / "o")


@pytest.mark.usefixtures("unread")
def test_a_menu_that_fits_no_row_is_refused(llama_96: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        bw.pipeline.search(small(llama_96, formats=("Q4_K", "Q6_K")), tmp_path / "o")
    sentence(refused.value, "Q4_K, Q6_K", "rows of 96, 192 weights", "--formats")


def test_a_window_that_the_engine_passes_over_is_refused(llama_tied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(llama_tied, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 16}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    asked = {"by": BY, "conditions": NO_CONDITIONS, "device": "cpu"}
    with pytest.raises(UserError) as refused:
        require_searchable(small(folder), tmp_path / "o", **asked)  # type: ignore[arg-type]
    sentence(refused.value, "16 tokens", "all 24", "--sequence-length")
    with pytest.raises(UserError) as refused:
        require_searchable(small(folder, sequence_length=16, cache_types="q8_0", cache_length=100), tmp_path / "o", **asked)  # type: ignore[arg-type]
    sentence(refused.value, "all 100", "--context")
    assert require_searchable(small(folder, sequence_length=16), tmp_path / "o", **asked).window_ignored == 16  # type: ignore[arg-type]
    served = small(folder, target="native", formats=())
    require_searchable(served, tmp_path / "o", **asked)  # type: ignore[arg-type]  # which computes as torch does


@pytest.mark.parametrize("target", ["llama.cpp", "transformers", "native", "native-channels"])
@pytest.mark.parametrize("name", ["llama_256", "gguf_quantized", "tiny_qwen3_moe"])
def test_what_headers_say_is_what_the_weights_say(name: str, target: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path, of = request.getfixturevalue(name), target_named(target)
    view = engine_named(target).view
    outline, source, container = open_headers(str(path), view), as_held(open_source(str(path), view), of), container_of(of, str(path))
    least, most = (as_held(headers, of) for headers in (outline.least, outline.most))
    assert [(t.name, t.shape) for t in least.tensors] == [(t.name, t.shape) for t in source.tensors]
    exact = container.fixed_bytes(source, (), tmp_path)
    assert container.fixed_bytes(least, (), tmp_path) <= exact <= container.fixed_bytes(most, (), tmp_path)
    if target == "llama.cpp":
        assert container.fixed_bytes(least, (), tmp_path) == exact


@pytest.mark.slow
def test_the_smallest_file_is_known_without_its_weights(llama_256: Path, tmp_path: Path) -> None:
    """Budgets just below it are refused at once, and none at it."""
    settings = small(llama_256, formats=("Q4_0", "Q8_0"))
    space = whole_space(set_up(settings, tmp_path / "run", device="cpu", progress=Silent()))
    smallest = space.total_bytes(space.smallest())
    asked = {"by": BY, "conditions": NO_CONDITIONS, "engine_python": "", "device": "cpu"}
    require_fittable(settings, tmp_path / "o", limit=bw.parse_budget(f"{smallest}B"), **asked)  # type: ignore[arg-type]
    with pytest.raises(BudgetError) as refused:
        require_fittable(settings, tmp_path / "o", limit=bw.parse_budget(f"{smallest - 1}B"), **asked)  # type: ignore[arg-type]
    sentence(refused.value, f"{smallest:,} bytes")
    assert np.isfinite(smallest)


@pytest.mark.usefixtures("unread")
def test_a_rank_above_every_matrix_is_refused(llama_96: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fit(small(llama_96, target="native", formats=("INT4_G64", "INT4_R64", "SVD_R128")), tmp_path / "out")
    sentence(caught.value, "SVD_R128", "128 rows and columns", "take it out of --formats")
