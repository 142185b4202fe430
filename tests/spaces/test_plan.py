"""Plans as values, as JSON and as lines for llama-quantize."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bitwright.compress import open_source
from bitwright.engines import LLAMA_CPP
from bitwright.errors import PlanError
from bitwright.spaces import (
    CacheTypes,
    CalibratedRouters,
    Healed,
    ImportanceFile,
    Kept,
    MovedChannels,
    Plan,
    PlannedDivergence,
    PlannedModel,
    Provenance,
    RequantizedCodes,
    read_plan,
)
from tests.sentences import sentence

COUNTS = st.integers(1, 2**53)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.from_regex(r"blk\.\d{1,2}\.[a-z_0-9]{1,12}\.weight|[a-z_]{1,9}\.weight", fullmatch=True)
KINDS = st.sampled_from([form.name for form in LLAMA_CPP.formats])
TEXT = st.text(max_size=20)
PLANS = st.builds(
    Plan,
    target=TEXT,
    target_version=TEXT,
    model=st.builds(PlannedModel, source=TEXT, fingerprint=TEXT, settings=st.dictionaries(TEXT, TEXT, max_size=3), n_weights=COUNTS),
    formats=st.dictionaries(NAMES, KINDS, max_size=6),
    size_bytes=COUNTS,
    divergence=st.builds(
        PlannedDivergence,
        nats_per_token=NUMBERS,
        standard_error=NUMBERS,
        basis=st.sampled_from(["measured", "predicted"]),
        text=TEXT,
        n_tokens=st.integers(0, 2**53),
    ),
    importance=st.builds(ImportanceFile, path=TEXT, sha256=TEXT),
    rounding=st.one_of(
        st.builds(RequantizedCodes, searched=TEXT, shipped=TEXT), st.builds(Kept, searched=TEXT, shipped=TEXT, path=TEXT, sha256=TEXT)
    ),
    steps=st.tuples()
    | st.tuples(st.builds(CalibratedRouters, ridge=st.floats(1e-9, 1e9), path=TEXT, sha256=TEXT))
    | st.tuples(st.just(Healed(tokens=512)))
    | st.tuples(st.builds(MovedChannels, step=st.sampled_from(["scale", "order-channels", "rotate"]), path=TEXT, sha256=TEXT)),
    found=st.builds(Provenance, bitwright=TEXT, strategy=TEXT, sensitivity=TEXT, calibration=TEXT, seed=st.integers(-(2**31), 2**31), budget=TEXT),
)
in_one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)


SEARCHED = {
    "won": "method",
    "method": "evopress",
    "effort": {"evaluations": 16, "tokens": 4096, "minutes": 2},
    "objectives": ["kl"],
    "held_out": "a text",
    "versions": {"torch": "2.0"},
}


def example() -> dict[str, Any]:
    """A plan as plain data."""
    return {
        "schema_version": 2,
        "target": "llama.cpp",
        "target_version": "b11549",
        "model": {"source": "a model", "fingerprint": "0f", "settings": {"rope_theta": "10000.0"}, "n_weights": 100, "quantized": ""},
        "formats": {"output.weight": "Q6_K", "blk.0.attn_q.weight": "Q4_K"},
        "size_bytes": 90,
        "split_max_bytes": 0,
        "divergence": {"nats_per_token": 0.125, "standard_error": 0.0, "basis": "measured", "text": "a text", "n_tokens": 7},
        "cache": {"keys": "Q8_0", "values": "Q4_0"},
        "importance": {"path": "run/imatrix.gguf", "sha256": "1f"},
        "rounding": {"codes": "anew", "searched": "ggml", "shipped": "ggml"},
        "steps": [{"step": "router-calibration", "ridge": 32.0, "path": "run/steps/a.safetensors", "sha256": "2f"}],
        "found": {"bitwright": "0.1.0", "strategy": "knapsack", "sensitivity": "gradient", "calibration": "self", "seed": 0, "budget": "90B"}
        | SEARCHED,
    }


def test_a_plan_of_before_searches_were_recorded_is_read() -> None:
    found = {key: value for key, value in example()["found"].items() if key not in SEARCHED}
    read = Plan.model_validate({**example(), "found": found}).found
    assert (read.won, read.method, read.effort.evaluations) == ("given", "", 0)


def refused(path: Path, given: Any) -> str:
    path.write_text(given if isinstance(given, str) else json.dumps(given), encoding="utf-8")
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    return sentence(caught.value, path, "is not a plan of schema 2")


@pytest.mark.slow
@given(plan=PLANS)
@in_one_folder
def test_a_plan_is_read_as_it_was_written(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(plan.to_json(), encoding="utf-8")
    again = read_plan(path)
    assert again == plan
    assert list(again.formats) == list(plan.formats)
    assert again.to_json() == plan.to_json()


def test_the_text_has_one_tensor_a_line() -> None:
    lines = Plan.model_validate(example()).to_json().splitlines()
    assert '    "output.weight": "Q6_K",' in lines
    assert '    "blk.0.attn_q.weight": "Q4_K"' in lines
    assert json.loads("\n".join(lines)) == example()


def test_a_plan_cannot_be_changed() -> None:
    plan = Plan.model_validate(example())
    with pytest.raises(ValidationError, match="frozen"):
        plan.size_bytes = 5


@pytest.mark.parametrize("where", ["", "model", "divergence", "importance", "rounding", "found"])
def test_an_unknown_key_is_named(where: str, tmp_path: Path) -> None:
    given = example()
    (given[where] if where else given)["sedd"] = 1
    key = f"{where}.sedd" if where else "sedd"
    assert f"it has the unknown key '{key}'; remove it" in refused(tmp_path / "plan.json", given)


@pytest.mark.parametrize("key", sorted(set(example()) - {"schema_version", "cache", "steps", "split_max_bytes"}))
def test_a_missing_key_is_named(key: str, tmp_path: Path) -> None:
    given = example()
    del given[key]
    assert f"'{key}': field required" in refused(tmp_path / "plan.json", given)


def test_a_plan_that_says_nothing_of_a_cache_leaves_it_to_the_engine(tmp_path: Path) -> None:
    given = example()
    assert Plan.model_validate(given).cache.types == CacheTypes("Q8_0", "Q4_0")
    del given["cache"]
    assert Plan.model_validate(given).cache.types == CacheTypes()
    assert "cache.keys" in refused(tmp_path / "plan.json", given | {"cache": {"keys": "Q6_K"}})


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("schema_version",), 3),
        (("size_bytes",), 0),
        (("size_bytes",), "90"),
        (("size_bytes",), True),
        (("size_bytes",), 90.5),
        (("size_bytes",), None),
        (("formats",), ["Q4_K"]),
        (("formats", "output.weight"), 4),
        (("model",), "SmolLM2"),
        (("model", "n_weights"), -1),
        (("divergence", "basis"), "guessed"),
        (("divergence", "nats_per_token"), "low"),
        (("found", "seed"), 0.5),
        (("steps",), "router-calibration"),
    ],
)
def test_a_value_of_the_wrong_kind_is_located(where: tuple[str, ...], value: Any, tmp_path: Path) -> None:
    given = example()
    inner = given
    for part in where[:-1]:
        inner = inner[part]
    inner[where[-1]] = value
    assert f"'{'.'.join(where)}'" in refused(tmp_path / "plan.json", given)


def test_a_plan_of_the_first_schema_is_told_so(tmp_path: Path) -> None:
    given = example() | {"schema_version": 1}
    del given["model"]["settings"]
    assert "schema 1" in refused(tmp_path / "plan.json", given)


@pytest.mark.parametrize(("key", "value"), [("step", "renormalisation"), ("ridge", 0.0), ("sha256", 7), ("text", "a")])
def test_a_step_is_one_that_is_known(key: str, value: Any, tmp_path: Path) -> None:
    given = example()
    given["steps"][0][key] = value
    assert f"'steps.0.{key}'" in refused(tmp_path / "plan.json", given)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_are_finite(value: str, tmp_path: Path) -> None:
    refused(tmp_path / "plan.json", json.dumps(example()).replace("0.125", value))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "a plan", '{"a": 1}}', "[" * 5000])
def test_what_is_not_json_of_a_plan_is_refused(text: str, tmp_path: Path) -> None:
    refused(tmp_path / "plan.json", text)


@given(cut=st.integers(0, len(json.dumps(example())) - 1))
@in_one_folder
def test_a_plan_cut_short_is_refused(cut: int, tmp_path: Path) -> None:
    refused(tmp_path / "plan.json", json.dumps(example())[:cut])


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(json.dumps(example()).encode() + b"\xff\xfe")
    with pytest.raises(PlanError) as caught:
        read_plan(path)
    sentence(caught.value, path, "UTF-8")


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        read_plan(tmp_path / name)
    sentence(caught.value, tmp_path / name, "bitwright plan")


@given(plan=PLANS)
def test_each_line_matches_its_own_tensor_alone(plan: Plan) -> None:
    lines = plan.to_tensor_types().splitlines()
    assert len(lines) == len(plan.formats)
    for line, (name, form) in zip(lines, plan.formats.items(), strict=True):
        pattern, kind = line.rsplit("=", 1)
        assert kind == form.lower()
        near = {name.replace(".", "x"), f"x{name}", f"{name}x", name.removesuffix(".weight"), f"blk.1{name}"} - {name}
        assert [other for other in {*plan.formats, *near} if re.search(pattern, other)] == [name]


@pytest.mark.parametrize("model", ["llama_256", "tiny_mixtral"])
def test_the_lines_of_a_real_model_tell_its_tensors_apart(model: str, request: pytest.FixtureRequest) -> None:
    names = [tensor.name for tensor in open_source(str(request.getfixturevalue(model))).tensors]
    plan = Plan.model_validate(example() | {"formats": dict.fromkeys(names, "Q4_K")})
    for name, line in zip(names, plan.to_tensor_types().splitlines(), strict=True):
        assert [other for other in names if re.search(line.rsplit("=", 1)[0], other)] == [name]
        assert re.fullmatch(r"\S+=q4_k", line)


def test_a_rounding_of_no_kind_is_refused(tmp_path: Path) -> None:
    given = example()
    given["rounding"]["codes"] = "guessed"
    message = refused(tmp_path / "plan.json", given)
    assert "'rounding'" in message
    assert "'anew', 'kept'" in message
    given["rounding"] = {"codes": "kept", "searched": "gptq", "shipped": "gptq", "sha256": "1f"}
    assert "'rounding.path': field required" in refused(tmp_path / "plan.json", given)
