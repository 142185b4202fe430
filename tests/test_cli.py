"""The command line in this process: what it prints, how it ends, and that a user's mistake is one sentence."""

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bitwright.cli import commands as cli
from bitwright.compress.models.gguf import libggml
from bitwright.spaces import read_plan
from tests.commands import Cli, Ended
from tests.compress import tiny_models as tiny
from tests.runs import leftovers

SIZES = ("--calibration-sequences", "8", "--held-out-sequences", "4", "--sequence-length", "24")


@pytest.fixture(scope="module")
def finished(gguf_256: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `search`, `plan` and `build` were run, by the command line alone."""
    folder = tmp_path_factory.mktemp("finished")
    words = (
        ("search", gguf_256, "--out", folder / "run", "--formats", "q8_0, Q4_K,q4_0", "--points", 3, *SIZES),
        ("plan", folder / "run", "--budget", "6bpw", "-o", folder / "plan.json"),
        ("build", folder / "plan.json", "-o", folder / "model.gguf"),
    )
    for line in words:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "argv", ["bitwright", *map(str, line)])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert not ended.value.code
    return folder


def refused(ended: Ended, *values: object, code: int = 2) -> str:
    """The one sentence of a command that was refused."""
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err + ended.out
    assert ended.err.count("bitwright: ") == 1
    sentence = ended.err.strip().split("\n")[-1]
    assert sentence.startswith("bitwright: ")
    assert sentence.endswith((".", "?")), sentence
    for value in values:
        assert str(value) in sentence
    return sentence


# --- the whole flow


@pytest.mark.slow
def test_a_search_a_plan_and_a_build_leave_their_files(finished: Path) -> None:
    plan = json.loads((finished / "plan.json").read_text(encoding="utf-8"))
    assert (finished / "model.gguf").stat().st_size == plan["size_bytes"]
    assert (finished / "plan.tensor-types.txt").read_text(encoding="utf-8").count("\n") == len(plan["formats"])
    assert (finished / "run" / "report.html").is_file()
    assert set(plan["formats"].values()) <= {"Q8_0", "Q4_K", "Q4_0"}
    assert not leftovers(finished)


@pytest.mark.slow
def test_memory_prints_where_every_byte_goes(bitwright: Cli, finished: Path) -> None:
    ended = bitwright("memory", finished / "plan.json", "--context", 100, "--parallel", 2, "--cache-types", "f16,bf16")
    assert all(
        word in ended.out for word in ("weights", "cache: keys", "BF16", "compute buffer", "engine", "total", "-c 200 -np 2 -ctk f16 -ctv bf16")
    )


@pytest.mark.slow
def test_a_fleet_has_a_plan_for_each_device_that_can_serve(bitwright: Cli, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "devices.toml").write_text('[[device]]\nprofile = "l4-24gb"\ncontext = 64\n[[device]]\nprofile = "rtx-4060-8gb"\n', encoding="utf-8")
    ended = bitwright("fleet", finished / "run", tmp_path / "devices.toml", "--out", tmp_path / "fleet", "--no-build")
    assert ended.code == 0
    assert "NVIDIA L4" in ended.out
    assert "On GeForce RTX 4060, 8 GB nothing fits: A context must be no longer" in ended.out
    assert [entry["fits"] for entry in json.loads((tmp_path / "fleet" / "fleet.json").read_text(encoding="utf-8"))["devices"]] == [True, False]


@pytest.mark.slow
def test_a_plan_has_one_limit(bitwright: Cli, finished: Path, tmp_path: Path) -> None:
    plan = ("plan", finished / "run", "-o", tmp_path / "plan.json")
    for wrong in ("", "--budget 6bpw --memory 1GiB", "--memory 1GiB", "--memory 1GiB --context 64 --cache-types f16,f16,f16"):
        ended = bitwright(*plan, *wrong.split())
        assert ended.code == 2
        assert ended.err.count("\n") == 1
    assert bitwright(*plan, "--memory", "36MB", "--context", 64).code == 0
    assert read_plan(tmp_path / "plan.json").found.budget == "36MB of memory at 64 × 1 tokens"


@pytest.mark.slow
def test_check_prints_what_was_promised_and_found(bitwright: Cli, finished: Path, tmp_path: Path) -> None:
    ended = bitwright("check", finished / "model.gguf", "--plan", finished / "plan.json")
    assert ended.code == 0
    assert "as planned" in ended.out
    assert "llama.cpp writes: The capital of France is" in ended.out
    assert "SHA-256" in ended.out
    assert "not compared" not in ended.out
    moved = Path(shutil.copy(finished / "model.gguf", tmp_path))
    for record in (None, "{", json.dumps({"schema_version": 1, "results": {}})):
        if record is not None:
            (tmp_path / ".bitwright-files").write_text(record, encoding="utf-8")
        ended = bitwright("check", moved, "--plan", finished / "plan.json")
        assert ended.code == 0
        assert "not compared" in ended.out


@pytest.mark.slow
def test_export_writes_for_another_tool_or_says_what_it_cannot_say(bitwright: Cli, finished: Path, tmp_path: Path) -> None:
    ended = bitwright("export", finished / "plan.json", "--to", "llama-quantize", "-o", tmp_path / "types.txt")
    assert ended.code == 0
    assert "importance matrix" in ended.out
    assert (tmp_path / "types.txt").read_text(encoding="utf-8") == read_plan(finished / "plan.json").to_tensor_types()
    refused(bitwright("export", finished / "plan.json", "--to", "mlx", "-o", tmp_path / "mlx.json"), "mlx cannot express")
    refused(bitwright("export", finished / "plan.json", "--to", "klingon", "-o", tmp_path / "mlx.json"), "'klingon'")


@pytest.mark.slow
def test_import_reads_another_tool_s_file(bitwright: Cli, finished: Path, gguf_256: Path, tmp_path: Path) -> None:
    bitwright("export", finished / "plan.json", "--to", "llama-quantize", "-o", tmp_path / "types.txt")
    words = ("import", gguf_256, tmp_path / "types.txt", "--out", tmp_path / "run", "-o", tmp_path / "plan.json", *SIZES)
    ended = bitwright(*words, "--from", "llama-quantize")
    assert ended.code == 0
    found, plan = read_plan(tmp_path / "plan.json"), read_plan(finished / "plan.json")
    assert (found.formats, found.size_bytes, found.divergence) == (plan.formats, plan.size_bytes, plan.divergence)
    assert f"{plan.size_bytes:,} bytes, {plan.divergence.nats_per_token:.4f}" in ended.out
    refused(bitwright(*words, "--from", "mlx"), "Formats of mlx must be those of the target")


@pytest.mark.slow
def test_what_ships_is_told_beside_what_was_searched(bitwright: Cli, llama_96: Path, tmp_path: Path) -> None:
    words = ("--target", "integers", "--formats", "int8_g32,int3_g32", "--codec", "rtn", "--evaluations", 0, *SIZES)
    assert bitwright("search", llama_96, "--out", tmp_path / "run", "--points", 2, *words).code == 0
    ended = bitwright("plan", tmp_path / "run", "--budget", "7bpw", "--ship-codec", "gptq", "-o", tmp_path / "plan.json")
    assert ended.code == 0
    assert "shipped with gptq (sequential)" in " ".join(ended.out.split())
    assert "Spearman" in ended.out
    assert read_plan(tmp_path / "plan.json").rounding.shipped == "gptq (sequential)"
    refused(bitwright("search", llama_96, "--out", tmp_path / "o", "--codec", "gptq", *SIZES), "ggml, obs")


@pytest.mark.slow
def test_a_broken_promise_ends_with_one(bitwright: Cli, finished: Path, gguf_256: Path) -> None:
    refused(bitwright("check", gguf_256, "--plan", finished / "plan.json"), f"{gguf_256.stat().st_size:,} bytes", "another format", code=1)


@pytest.mark.slow
def test_front_is_a_table_or_json(bitwright: Cli, finished: Path) -> None:
    ended = bitwright("front", finished / "run", "--json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)
    table = bitwright("front", finished / "run")
    assert table.code == 0
    with pytest.raises(json.JSONDecodeError):
        json.loads(table.out)


@pytest.mark.slow
def test_fit_does_it_all_and_brackets_in_paths_are_printed_as_they_are(bitwright: Cli, gguf_256: Path, tmp_path: Path) -> None:
    """Rich would take them for markup: swallow `[bold]`, and fail at `[/x]`."""
    folder = tmp_path / "[bold]a[" / "x]"
    ended = bitwright("fit", gguf_256, "--budget", "6bpw", "--out", folder, "--formats", "Q8_0,Q4_0", "--sensitivity", "weight", *SIZES)
    assert ended.code == 0
    for name in ("model.gguf", "plan.json", "report.html"):
        assert str(folder / name) in ended.out
        assert (folder / name).is_file()
    assert str(folder / "plan.json") in bitwright("plan", folder, "--budget", "6bpw", "-o", folder / "plan.json").out
    assert str(folder / "m.gguf") in bitwright("build", folder / "plan.json", "-o", folder / "m.gguf").out
    words = ("--formats", "Q8_0,Q4_0", "--sensitivity", "weight", "--points", "3", *SIZES)
    assert str(folder / "report.html") in bitwright("search", gguf_256, "--out", folder, *words).out
    assert bitwright("front", folder).code == 0


# --- mistakes


@pytest.mark.slow
def test_models_that_are_none(bitwright: Cli, tmp_path: Path, llama_tied: Path, gguf_256: Path) -> None:
    def fit(model: object) -> Ended:
        ended = bitwright("fit", model, "--budget", "6bpw", "--out", tmp_path / "o", *SIZES)
        assert not leftovers(tmp_path)
        return ended

    refused(fit(tmp_path / "missing.gguf"), "missing.gguf", "check the path")
    refused(fit("[bold]no[/red].gguf"), "'[bold]no[/red].gguf'")
    refused(fit("org/no-such-model"), "org/no-such-model")
    (tmp_path / "cut.gguf").write_bytes(gguf_256.read_bytes()[:300_000])
    refused(fit(tmp_path / "cut.gguf"), "cut.gguf")
    (tmp_path / "empty.gguf").write_bytes(b"")
    refused(fit(tmp_path / "empty.gguf"), "empty.gguf")
    (tmp_path / "folder").mkdir()
    refused(fit(tmp_path / "folder"), "config.json")

    def configured(name: str, **settings: Any) -> Path:
        shutil.copytree(llama_tied, tmp_path / name)
        config = json.loads((llama_tied / "config.json").read_text(encoding="utf-8"))
        (tmp_path / name / "config.json").write_text(json.dumps(config | settings), encoding="utf-8")
        return tmp_path / name

    refused(fit(configured("bert", model_type="vit", architectures=["ViTModel"])), "'vit'")
    refused(fit(configured("unknown", model_type="no_such_type")), "unknown")
    refused(fit(configured("gpt2", model_type="gpt2", architectures=["GPT2LMHeadModel"], n_embd=64, n_layer=2, n_head=4)), "gpt2")


@pytest.mark.slow
@pytest.mark.parametrize(("budget", "value"), [("50kB", "50,000 bytes"), ("90GB", "90GB"), ("ninety", "'ninety'"), ("5", "'5'"), ("0MB", "'0MB'")])
def test_budgets_that_cannot_be(bitwright: Cli, finished: Path, gguf_256: Path, tmp_path: Path, budget: str, value: str) -> None:
    refused(bitwright("fit", gguf_256, "--budget", budget, "--out", tmp_path / "o", *SIZES), value)
    assert not leftovers(tmp_path)
    assert not (tmp_path / "o" / "model.gguf").exists()
    refused(bitwright("plan", finished / "run", "--budget", budget, "-o", tmp_path / "plan.json"), value)
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.slow
def test_texts_that_cannot_be_used(bitwright: Cli, gguf_256: Path, tmp_path: Path) -> None:
    def fit(*words: object) -> Ended:
        ended = bitwright("fit", gguf_256, "--budget", "6bpw", "--out", tmp_path / "o", "--formats", "Q8_0,Q4_0", *SIZES, *words)
        assert not leftovers(tmp_path)
        return ended

    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "short.txt").write_text("Once upon a time", encoding="utf-8")
    (tmp_path / "good.txt").write_text("".join(tiny.TEXT) * 20, encoding="utf-8")
    refused(fit("--calibration", tmp_path / "empty.txt"), "empty.txt", "must not be empty")
    refused(fit("--calibration", tmp_path / "short.txt"), "short.txt", "at least 4 sequences of 24 tokens")
    refused(fit("--calibration", tmp_path / "missing.txt"), "missing.txt")
    refused(fit("--calibration", "no-such-dataset"), "no-such-dataset")
    refused(fit("--calibration", tmp_path / "good.txt", "--held-out", tmp_path / "short.txt"), "short.txt")
    refused(fit("--held-out", tmp_path / "missing.txt"), "missing.txt")
    refused(fit("--imatrix", tmp_path / "missing.dat"), "missing.dat")
    refused(fit("--imatrix", tmp_path / "good.txt"), "good.txt")
    assert fit("--calibration", tmp_path / "good.txt", "--sensitivity", "weight").code == 0, "mistakes before must not have spoilt the folder"


@pytest.mark.slow
def test_plans_that_cannot_be_built(bitwright: Cli, finished: Path, llama_96: Path, tmp_path: Path) -> None:
    good = json.loads((finished / "plan.json").read_text(encoding="utf-8"))

    def build(**changes: Any) -> Ended:
        (tmp_path / "plan.json").write_text(json.dumps(good | changes), encoding="utf-8")
        ended = bitwright("build", tmp_path / "plan.json", "-o", tmp_path / "m.gguf")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json"]
        return ended

    refused(build(colour="red"), "'colour'")
    refused(build(target="[bold]x[/y]"), "[bold]x[/y]")
    refused(build(formats=good["formats"] | {"blk.0.attn_q.weight": "Q4_X"}), "Q4_X", "blk.0.attn_q.weight")
    refused(build(formats=good["formats"] | {"blk.7.attn_q.weight": "Q8_0"}), "blk.7.attn_q.weight")
    refused(build(model=good["model"] | {"source": str(llama_96)}), "fingerprint")
    refused(build(importance=good["importance"] | {"sha256": "0" * 64}), "changed")
    (tmp_path / "plan.json").write_text("{", encoding="utf-8")
    refused(bitwright("build", tmp_path / "plan.json", "-o", tmp_path / "m.gguf"), "plan.json", "JSON")
    refused(bitwright("build", tmp_path / "missing.json", "-o", tmp_path / "m.gguf"), "missing.json")
    refused(bitwright("check", tmp_path / "missing.gguf", "--plan", finished / "plan.json"), "missing.gguf")


@pytest.mark.slow
def test_places_that_cannot_be_written(bitwright: Cli, finished: Path, gguf_256: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    below = tmp_path / "file" / "below"
    refused(bitwright("fit", gguf_256, "--budget", "6bpw", "--out", below, *SIZES), below, "--out")
    refused(bitwright("search", gguf_256, "--out", below, *SIZES), below)
    refused(bitwright("plan", finished / "run", "--budget", "6bpw", "-o", below), below)
    refused(bitwright("plan", finished / "run", "--budget", "6bpw", "-o", tmp_path), tmp_path)
    refused(bitwright("build", finished / "plan.json", "-o", below), below)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert not leftovers(tmp_path)


@pytest.mark.slow
def test_words_that_are_not_known(bitwright: Cli, gguf_256: Path, tmp_path: Path) -> None:
    def fit(*words: object) -> Ended:
        return bitwright("fit", gguf_256, "--budget", "6bpw", "--out", tmp_path / "o", *SIZES, *words)

    refused(fit("--target", "exllama"), "'exllama'", "llama.cpp")
    refused(fit("--formats", "Q8_0,Q5_KM"), "'Q5_KM'", "did you mean Q5_K?")
    refused(fit("--sensitivity", "gradent"), "'gradent'", "did you mean gradient?")
    refused(fit("--sensitivity", "guess"), "'guess'", "choose from weight")
    for device in ("banana", "cuda:77", "meta"):
        refused(fit("--device", device), f"'{device}'", "choose cpu")
    refused(fit("--sequence-length", "1"), "tokens of a sequence")
    refused(fit("--calibration-sequences", "0"), "calibration sequences")
    assert not (tmp_path / "o").exists(), "all of these are known to be wrong before anything is begun"
    for words in (("--points", "3"), ("--seed", "x")):
        ended = fit(*words)
        assert ended.code == 2
        assert words[0] in ended.err
        assert "Traceback" not in ended.err


def test_a_front_needs_two_points(bitwright: Cli, gguf_256: Path, tmp_path: Path) -> None:
    ended = bitwright("search", gguf_256, "--out", tmp_path / "o", "--points", "1", *SIZES)
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_runs_that_are_none(bitwright: Cli, gguf_256: Path, finished: Path, tmp_path: Path) -> None:
    refused(bitwright("front", tmp_path), tmp_path, "bitwright search")
    refused(bitwright("plan", tmp_path / "missing", "--budget", "6bpw"), "missing")
    (tmp_path / "run.sqlite").write_text("no database at all, but long enough to be taken for one" * 50, encoding="utf-8")
    refused(bitwright("front", tmp_path), "run.sqlite")
    shutil.copytree(finished / "run", tmp_path / "run")
    words = ("--formats", "Q8_0,Q4_K,Q4_0", *SIZES)
    ended = bitwright("search", gguf_256, "--out", tmp_path / "run", *words, "--seed", "5", "--sensitivity", "weight")
    refused(ended, "seed was 0 and is now 5", "sensitivity was gradient and is now weight", "--out")


def test_a_library_that_is_too_old(
    bitwright: Cli, gguf_256: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2025.1.1" if name == "xllamacpp" else version(name))
    libggml.library.cache_clear()
    request.addfinalizer(libggml.library.cache_clear)
    refused(bitwright("fit", gguf_256, "--budget", "6bpw", "--out", tmp_path / "o", *SIZES), "xllamacpp 2026.", "2025.1.1", "pip install")
    assert not leftovers(tmp_path)


@pytest.mark.slow
def test_several_calibration_texts(bitwright: Cli, tiny_mixtral: Path, tmp_path: Path) -> None:
    for name, line in (("prose.txt", "Once upon a time there was a little girl. "), ("code.txt", "x = y + 3; ")):
        (tmp_path / name).write_text(line * 150, encoding="utf-8")
    words = ("--target", "native", "--formats", "INT2_G32,INT4_G32", "--points", 2, "--evaluations", 0, *SIZES)
    both = ("--calibration", f"{tmp_path / 'prose.txt'}:3", "--calibration", tmp_path / "code.txt")
    made = bitwright("search", tiny_mixtral, "--out", tmp_path / "run", *both, *words)
    assert made.code == 0, made.err
    assert "Calibration texts" in made.out
    assert "code.txt" in made.out
    planned = bitwright("plan", tmp_path / "run", "--budget", "8bpw", "-o", tmp_path / "plan.json")
    assert "Bits per weight, by calibration text" in planned.out
    assert "Frequency of each expert, by calibration text" in bitwright("experts", tmp_path / "run").out
    refused(bitwright("search", tiny_mixtral, "--out", tmp_path / "o", "--calibration", "a.txt:0", *words), "a.txt")


@pytest.mark.slow
def test_a_step_by_its_words(bitwright: Cli, tiny_mixtral: Path, tmp_path: Path) -> None:
    words = ("--target", "native", "--formats", "INT2_G32,INT4_G32", "--points", 2, "--evaluations", 0, *SIZES)
    assert bitwright("search", tiny_mixtral, "--out", tmp_path / "run", *words).code == 0
    planned = bitwright("plan", tmp_path / "run", "--budget", "8bpw", "-o", tmp_path / "plan.json", "--step", "router-calibration:ridge=4")
    assert "router-calibration:ridge=4" in " ".join(planned.out.split())
    assert [step.ridge for step in read_plan(tmp_path / "plan.json").steps] == [4.0]
    refused(bitwright("plan", tmp_path / "run", "--budget", "8bpw", "-o", tmp_path / "plan.json", "--step", "pesf"), "pesf", "router-calibration")


@pytest.mark.slow
def test_experts_and_what_a_plan_makes_of_them(bitwright: Cli, tiny_mixtral: Path, tmp_path: Path) -> None:
    run, plan_file = tmp_path / "run", tmp_path / "plan.json"
    words = ("--target", "native", "--formats", "INT2_G32,INT4_G32", "--skip", "token_embd*,output*,*attn*", "--points", 2)
    assert bitwright("search", tiny_mixtral, "--out", run, *words, *SIZES).code == 0
    assert bitwright("plan", run, "--budget", "11bpw", "-o", plan_file).code == 0
    without, shown = bitwright("experts", run), bitwright("experts", run, "--plan", plan_file)
    assert without.code == shown.code == 0
    assert "blk.1.expert.3" in without.out
    assert "INT" not in without.out
    assert "_G32" in shown.out
    assert "A decode step reads" in shown.out
    refused(bitwright("experts", tmp_path), "run.sqlite")


def test_stopping_it_is_no_crash(bitwright: Cli, gguf_256: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bitwright.pipeline.loaded_run.load", stop)
    ended = bitwright("fit", gguf_256, "--budget", "6bpw", "--out", tmp_path / "o", *SIZES)
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert "Run the same command again" in ended.err


@pytest.mark.slow
def test_the_command_is_installed() -> None:
    command = shutil.which("bitwright", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert command
    ran = subprocess.run([command, "sing"], capture_output=True, text=True, check=False)  # which loads no library
    assert ran.returncode == 2
    assert "No such command 'sing'" in ran.stderr
    assert ran.stdout == ""


def test_help_does_not_wait_for_torch() -> None:
    """The command line is there at once: nothing heavy is loaded before a command needs it."""
    program = "import sys, bitwright.cli.commands; print(*sorted({'torch', 'transformers', 'scipy'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split() == []
