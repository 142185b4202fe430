import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bitwright as bw
from bitwright.compress import open_source
from bitwright.errors import RunError, TextError, UserError
from bitwright.objectives import Shape
from bitwright.pipeline.settings import OF_MODEL, Settings, settings_from_json
from bitwright.spaces import StructureKind
from tests.sentences import sentence


def test_settings_come_back_from_json(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a", encoding="utf-8")
    given = bw.Settings("m", formats=("Q8_0", "Q4_K"), held_out=str(tmp_path / "text.txt"), sensitivity="weight", n_calibration=3, seed=9)
    assert settings_from_json(given.to_json()) == given
    assert given.shape == Shape(3, 24, 128)


def test_settings_of_another_version_are_a_sentence() -> None:
    said = json.loads(bw.Settings("model").to_json())
    for other in ({name: value for name, value in said.items() if name != "steps"}, said | {"flavour": "salt"}):
        with pytest.raises(RunError) as error:
            settings_from_json(json.dumps(other))
        sentence(error.value, "search again")


@pytest.mark.parametrize(
    ("wrong", "values"),
    [
        ({"n_calibration": 0}, ("calibration sequences", "at least 2", "it is 0")),
        ({"n_held_out": -2}, ("held-out sequences", "at least 2", "it is -2")),
        ({"sequence_length": 1}, ("tokens of a sequence", "at least 2", "it is 1")),
        ({"target": "exllama"}, ("'exllama'", "llama.cpp")),
        ({"codec": "gptq"}, ("llama.cpp", "ggml, obs", "'gptq'", "choose one of them")),
        ({"target": "native", "split_max_bytes": 10**9}, ("llama.cpp alone", "native", "--split-max-size")),
        ({"split_max_bytes": 1000}, ("65,536", "1,000")),
        ({"target": "integers", "codec": "awq"}, ("'awq'", "rtn, clip, hqq, gptq, gptq+clip")),
        ({"rare": "free"}, ("'free'", "floor", "forced")),
        ({"rare": "forced", "sensitivity": "importance"}, ("'importance'", "gradient", "--rare floor")),
        ({"formats": ("Q8_0", "Q4_X")}, ("'Q4_X'", "did you mean")),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], values: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as refused:
        bw.Settings("m", **wrong)
    sentence(refused.value, *values)


@pytest.mark.parametrize(("name", "what"), [("held_out", "held-out text"), ("imatrix", "importance matrix")])
def test_files_that_are_missing_are_refused(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(TextError) as refused:
        bw.Settings("m", **{name: str(tmp_path / "missing")})  # type: ignore[arg-type]
    sentence(refused.value, what, tmp_path / "missing")


def test_the_identity_tells_every_setting_that_changes_the_outcome(llama_tied: Path, llama_96: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    source = open_source(str(llama_tied))
    plain = bw.Settings(str(llama_tied))
    others: dict[str, Any] = {
        "formats": ("Q8_0",),
        "calibration": str(tmp_path / "a"),
        "held_out": str(tmp_path / "a"),
        "imatrix": str(tmp_path / "a"),
        "sensitivity": "weight",
        "rare": "forced",
        "n_calibration": 65,
        "n_held_out": 33,
        "sequence_length": 129,
        "seed": 1,
        "split_max_bytes": 10**6,
        "dtype": "bfloat16",
    }
    found = [plain.identity(source)] + [replace(plain, **{name: value}).identity(source) for name, value in others.items()]
    other_model = plain.identity(open_source(str(llama_96)))
    assert len({tuple(each.items()) for each in [*found, other_model]}) == len(others) + 2
    for each in found[1:]:
        assert each.keys() == found[0].keys()
        assert sum(each[key] != found[0][key] for key in found[0]) == 1
    changed = {key for key in found[0].keys() | other_model.keys() if found[0].get(key) != other_model.get(key)}
    assert {key for key in changed if not key.startswith(OF_MODEL)} == {"model"}
    assert changed > {"model"}, "the settings of another model are told by name"


def test_the_identity_goes_by_what_files_hold_and_not_where_they_are(llama_tied: Path, tmp_path: Path) -> None:
    source = open_source(str(llama_tied))

    def identity(folder: str, text: str) -> dict[str, str]:
        path = tmp_path / folder / "text.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return bw.Settings(str(llama_tied), calibration=str(path)).identity(source)

    assert identity("x", "one") == identity("y", "one") != identity("x", "two")


def test_where_a_model_is_computed_does_not_change_the_identity(llama_tied: Path) -> None:
    source, plain = open_source(str(llama_tied)), bw.Settings(str(llama_tied))
    assert replace(plain, stream=True, search_memory_bytes=10**9).identity(source) == plain.identity(source)


def test_the_type_is_that_of_the_device_where_none_is_said() -> None:
    plain, half = bw.Settings("m"), bw.Settings("m", dtype="float16")
    assert [plain.on_device(device).dtype for device in ("cpu", "cuda:1", "mps")] == ["float32", "bfloat16", "bfloat16"]
    assert [half.on_device(device) for device in ("cpu", "cuda")] == [half, half]
    with pytest.raises(UserError) as refused:
        bw.Settings("m", dtype="float8")
    sentence(refused.value, "'float8'", "bfloat16")


@pytest.mark.parametrize(
    ("given", "named"),
    [({"target": "integers", "codec": "gptq"}, "gptq"), ({"ship_codec": "obs"}, "obs"), ({"steps": ("router-calibration",)}, "router-calibration")],
)
def test_what_runs_blocks_that_it_changes_is_not_streamed(given: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as refused:
        bw.Settings("m", **given).require_streamable()
    sentence(refused.value, named, "--search-memory")
    bw.Settings("m").require_streamable()


def test_the_order_of_the_menu_is_no_matter(llama_tied: Path) -> None:
    source = open_source(str(llama_tied))
    first, second = (bw.Settings(str(llama_tied), formats=menu).identity(source) for menu in (("Q8_0", "Q4_0"), ("Q4_0", "Q8_0")))
    assert first == second


def test_the_usual_codec_is_the_target_s_and_another_one_another_run(llama_tied: Path) -> None:
    source = open_source(str(llama_tied))
    plain = bw.Settings(str(llama_tied), target="integers")
    assert (bw.Settings("m").rounding, plain.rounding) == ("ggml", "rtn")
    assert replace(plain, codec="rtn").identity(source) == plain.identity(source) != replace(plain, codec="clip").identity(source)


@pytest.mark.parametrize(
    ("target", "structure", "added", "left"),
    [
        ("native", ("experts",), "DROP", ()),
        ("native", ("channels", "experts", "layers"), "DROP", ("channels", "layers")),
        ("native-channels", ("channels",), "PRUNE", ()),
        ("llama.cpp", ("experts", "layers"), "", ("experts", "layers")),
    ],
)
def test_what_an_engine_takes_away_as_a_format_is_in_the_menu(
    target: str, structure: tuple[StructureKind, ...], added: str, left: tuple[str, ...], llama_96: Path
) -> None:
    settings = Settings(str(llama_96), target=target, structure=structure)
    assert settings.taken == left
    assert (added in settings.menu) == bool(added)
    if added:
        named = replace(settings, formats=("INT4_G32",))
        assert named.menu == ("INT4_G32", added)
        assert {form.name for form in settings.engine.target.formats if not form.only_named} == {*settings.menu} - {added}
        with pytest.raises(UserError) as caught:
            replace(named, formats=("INT4_G32", added))
        sentence(caught.value, added, "--structure")
    else:
        assert settings.menu == ()
