"""Exported plans: `read` inverts `write`; formats that cannot be expressed, and modules left to a tool's defaults, are refused by name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.compress import ParameterSlice
from bitwright.dialects import Module, dialect_named, modules_of, offered_by
from bitwright.dialects.known import DIALECTS
from bitwright.engines.compressed_tensors.target import VLLM
from bitwright.errors import PlanError, UserError
from bitwright.spaces import INTEGER_FORMATS, PACKED_FORMATS, Format, Tensor

UP = "blk.1.ffn_up.weight"
MODULES = {
    UP: Module("model.layers.1.mlp.up_proj", (256, 128), "ffn_up"),
    "blk.11.ffn_up.weight": Module("model.layers.11.mlp.up_proj", (256, 128), "ffn_up"),
    "token_embd.weight": Module("model.embed_tokens", (512, 128), "token_embd"),
    "output.weight": Module("lm_head", (512, 128), "output"),
}
NAMES = [module.name for module in MODULES.values()]
INTEGERS, PACKED = offered_by(INTEGER_FORMATS), offered_by(PACKED_FORMATS)


def grouped(template: str, bits: tuple[int, ...] = (2, 3, 4, 5, 6), groups: tuple[str, ...] = ("G32", "G64", "G128")) -> list[str]:
    return [template.format(width, group) for width in bits for group in groups]


SAYS: dict[str, list[tuple[tuple[Format, ...], list[str]]]] = {
    "autoround": [
        (INTEGER_FORMATS, [*grouped("INT{}_{}"), "INT7_G64", "INT4_ROW", "BF16"]),
        (PACKED_FORMATS, [*grouped("W{}_{}"), *grouped("W{}_{}_ZP"), "W8_G64", "W4_ROW", "W3_ROW_ZP", "BF16"]),
    ],
    "gptqmodel": [
        (INTEGER_FORMATS, [*grouped("INT{}_{}"), "INT8_G64", "INT4_ROW", "BF16"]),
        (PACKED_FORMATS, [*grouped("W{}_{}"), *grouped("W{}_{}_ZP"), "W8_G64_ZP", "W4_ROW", "BF16"]),
    ],
    "llm-compressor": [
        (INTEGER_FORMATS, [*grouped("INT{}_{}"), "INT8_G64", "INT4_ROW", "F16"]),
        (PACKED_FORMATS, [*grouped("W{}_{}"), *grouped("W{}_{}_ZP"), "W7_G64_ZP", "W8_ROW", "F16"]),
        (VLLM.formats, ["W8A8_ROW", "FP8_ROW", "FP8A8_ROW", "W8_ROW", "W4_G64"]),
    ],
    "mlx": [(INTEGER_FORMATS, [*grouped("INT{}_{}"), "INT8_G64", "BF16"]), (PACKED_FORMATS, [*grouped("W{}_{}_ZP"), "W8_G64_ZP", "BF16"])],
    "modelopt": [(PACKED_FORMATS, [*grouped("W{}_{}", (2, 3, 4, 5, 6, 7, 8), ("G32", "G64", "G128", "ROW")), "BF16"])],
    "llama-quantize": [(INTEGER_FORMATS, ["Q4_K", "IQ4_NL", "Q8_0", "BF16"])],
}


@pytest.mark.parametrize(("name", "formats", "says"), [(name, *family) for name, families in SAYS.items() for family in families])
@given(data=st.data())
def test_what_is_written_is_read(name: str, formats: tuple[Format, ...], says: list[str], data: st.DataObject) -> None:
    planned = data.draw(st.dictionaries(st.sampled_from(["blk.1.ffn_up.weight", "blk.11.ffn_up.weight"]), st.sampled_from(says)))
    kept = () if name == "llama-quantize" else ("BF16", "F16")
    read = DIALECTS[name].read(DIALECTS[name].write(planned, MODULES), MODULES, offered_by(formats))
    assert read == {tensor: form for tensor, form in planned.items() if form not in kept}


def test_every_integer_format_has_a_name_of_its_own() -> None:
    for formats, offered in ((INTEGER_FORMATS, INTEGERS), (PACKED_FORMATS, PACKED)):
        assert set(offered.values()) == {form.name for form in formats} - {"F32", "F16", "BF16"}


@pytest.mark.parametrize(
    ("name", "tensor", "form", "why"),
    [
        ("mlx", UP, "INT7_G64", "5, 6 or 8 bits"),
        ("mlx", UP, "INT4_ROW", "groups of 32"),
        ("mlx", UP, "Q4_K", "integers"),
        ("autoround", UP, "INT8_G64", "asymmetric"),
        ("autoround", "token_embd.weight", "INT4_G64", "embeddings"),
        ("gptqmodel", UP, "Q4_K", "integers"),
        ("gptqmodel", UP, "INT7_G64", "6 or 8 bits"),
        ("gptqmodel", "token_embd.weight", "INT4_G64", "embeddings"),
        ("gptqmodel", "output.weight", "INT4_G64", "head"),
        ("llm-compressor", UP, "IQ4_NL", "integers"),
        ("llama-quantize", UP, "INT4_G64", "ggml"),
        ("autoround", UP, "W8_G64_ZP", "asymmetric"),
        ("mlx", UP, "W4_G64", "asymmetric"),
        ("modelopt", UP, "INT4_G64", "symmetric"),
        ("modelopt", UP, "W4_G64_ZP", "symmetric"),
        ("modelopt", UP, "Q4_K", "integers"),
        *((name, UP, form, "") for name in DIALECTS if name != "llm-compressor" for form in ("W8A8_ROW", "FP8_ROW", "FP8A8_ROW")),
    ],
)
def test_what_cannot_be_said_is_named(name: str, tensor: str, form: str, why: str) -> None:
    with pytest.raises(PlanError, match=rf"{form} for {tensor}.*{why}"):
        DIALECTS[name].write({tensor: form}, MODULES)


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "llama-quantize" and not name.startswith("evopress")])
def test_groups_must_divide_rows(name: str) -> None:
    with pytest.raises(PlanError, match="172 weights"):
        DIALECTS[name].write({UP: "INT4_G64"}, {UP: Module("model.layers.1.mlp.up_proj", (64, 172), "ffn_up")})


def test_autoround_leaves_matrices_that_32_does_not_divide() -> None:
    with pytest.raises(PlanError, match="172"):
        DIALECTS["autoround"].write({UP: "INT4_G64"}, {UP: Module("model.layers.1.mlp.up_proj", (172, 64), "ffn_up")})


@pytest.mark.parametrize("name", ["autoround", "mlx"])
def test_what_a_plan_leaves_out_is_said_to_stay(name: str) -> None:
    assert "layers.11.mlp" in DIALECTS[name].write({UP: "INT4_G64"}, MODULES)


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "llama-quantize"])
def test_an_expert_in_a_stack_and_a_part_of_a_fused_weight_have_no_module(name: str) -> None:
    places = {
        "blk.0.ffn_up_exps.3.weight": ParameterSlice("model.layers.0.mlp.experts.gate_up_proj", 3, range(8)),
        "blk.0.attn_q.weight": ParameterSlice("model.layers.0.qkv_proj.weight", -1, range(8)),
        "blk.0.attn_k.weight": ParameterSlice("model.layers.0.qkv_proj.weight", -1, range(8, 16)),
        "blk.0.attn_output.weight": ParameterSlice("model.layers.0.o_proj.weight", -1, range(8)),
    }
    modules = modules_of([Tensor(tensor, (8, 64), "F32") for tensor in places], {tensor: (piece,) for tensor, piece in places.items()})
    assert modules == {"blk.0.attn_output.weight": Module("model.layers.0.o_proj", (8, 64), "attn_output")}
    with pytest.raises(PlanError, match=r"blk\.0\.ffn_up_exps\.3\.weight"):
        DIALECTS[name].write({"blk.0.ffn_up_exps.3.weight": "INT4_G64"}, modules)


def _autoround(**changes: object) -> str:
    stays = {name: {"bits": 16} for name in NAMES}
    return json.dumps(stays | {NAMES[0]: {"bits": 4, "group_size": 64, "sym": False, "data_type": "int"} | changes})


def _recipe(weights: dict[str, object] | None = None, *, targets: tuple[str, ...] = (NAMES[0],), **modifier: object) -> str:
    asked = {"num_bits": 4, "symmetric": False, "strategy": "group", "group_size": 64} | (weights or {})
    groups = {"config_groups": {"group_0": {"targets": targets, "weights": asked}}}
    return json.dumps({"quant_stage": {"quant_modifiers": {"QuantizationModifier": groups | modifier}}})


def _mlx(entry: object) -> str:
    return json.dumps({"quantization": {"group_size": 64, "bits": 4} | dict.fromkeys(NAMES, False) | {NAMES[0]: entry}})


def _modelopt(*entries: dict[str, object]) -> str:
    return json.dumps({"quant_cfg": [{"quantizer_name": "*", "enable": False}, *entries]})


_UP_QUANTIZER = "model.layers.1.mlp.up_proj.weight_quantizer"
_BLOCKS = {"quantizer_name": _UP_QUANTIZER, "cfg": {"num_bits": 4, "block_sizes": {"-1": 64}}}


def _dynamic(entry: object, rest: str = "-:.*") -> str:
    return json.dumps({"+:^model\\.layers": entry, rest: {}})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("autoround", _autoround()),
        ("llm-compressor", _recipe()),
        ("llm-compressor", _recipe(targets=("re:.*up_proj",), ignore=["re:.*11", "lm_head"])),
        ("mlx", _mlx({"bits": 4, "group_size": 64})),
    ],
)
def test_what_others_wrote_is_read(name: str, text: str) -> None:
    assert DIALECTS[name].read(text, MODULES, INTEGERS) == {UP: "INT4_G64"}


_OLD = {"default": {"enable": False}, "*layers.1.*weight_quantizer": {"num_bits": 4, "block_sizes": {"-1": 64, "type": "static"}, "enable": True}}


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("autoround", _autoround(sym=True), "W4_G64"),
        ("llm-compressor", _recipe({"symmetric": True}), "W4_G64"),
        ("llm-compressor", _recipe(), "W4_G64_ZP"),
        ("mlx", _mlx({"bits": 4, "group_size": 64}), "W4_G64_ZP"),
        ("modelopt", _modelopt(_BLOCKS), "W4_G64"),
        ("modelopt", _modelopt(_BLOCKS).replace('"-1"', "-1"), "W4_G64"),
        ("modelopt", json.dumps({"quant_cfg": _OLD, "algorithm": "awq_lite"}), "W4_G64"),
        (
            "modelopt",
            _modelopt(
                {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
                *({"quantizer_name": f"*{part}*", "enable": False} for part in ("layers.11", "embed", "lm_head")),
            ),
            "W8_ROW",
        ),
        (
            "modelopt",
            _modelopt(_BLOCKS, {"quantizer_name": "*up_proj*", "enable": False}, {"quantizer_name": _UP_QUANTIZER, "enable": True}),
            "W4_G64",
        ),
        ("modelopt", _modelopt(_BLOCKS, {"quantizer_name": _UP_QUANTIZER, "cfg": {"num_bits": 3, "axis": 0}}), "W3_ROW"),
        ("modelopt", _modelopt(_BLOCKS, {"quantizer_name": "*input_quantizer", "enable": False}), "W4_G64"),
    ],
)
def test_what_others_wrote_is_read_for_packed_formats(name: str, text: str, form: str) -> None:
    assert DIALECTS[name].read(text, MODULES, PACKED) == {UP: form}


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        *((name, "{", "must be") for name in DIALECTS),
        *((name, "[]", "must be") for name in DIALECTS),
        ("autoround", json.dumps({".*up_proj": {"bits": 4}}), "expressions are not read"),
        ("autoround", json.dumps({NAMES[0]: "W4A16"}), "presets are not read"),
        ("autoround", _autoround(scheme="W4A16"), "scheme"),
        ("autoround", _autoround(act_bits=8), "act_bits"),
        ("autoround", _autoround(data_type="mx_fp"), "mx_fp"),
        ("autoround", _autoround(sym=True), "symmetric"),
        ("autoround", json.dumps({NAMES[0]: {"bits": 16}}), "layers.11.mlp.up_proj to the tool's defaults"),
        ("gptqmodel", '{"+:(": {}}', "regular expressions"),
        ("gptqmodel", _dynamic({"bits": 4, "group_size": 64}), "symmetric"),
        ("gptqmodel", _dynamic({"bits": 4, "group_size": 64, "sym": False, "desc_act": True}), "desc_act"),
        ("gptqmodel", _dynamic({"bits": 4, "group_size": 64, "sym": False}, "+:lm_head"), "no head"),
        ("gptqmodel", "{}", "defaults"),
        ("llm-compressor", _recipe(targets=("Linear",)), "classes are not read"),
        ("llm-compressor", _recipe(targets=("re:(",)), "regular expression"),
        ("llm-compressor", _recipe(ignore=["Linear"]), "not by class"),
        ("llm-compressor", _recipe(scheme="W4A16"), "scheme"),
        ("llm-compressor", _recipe({"strategy": "tensor"}), "strategy tensor"),
        ("llm-compressor", _recipe({"type": "float"}), "type float"),
        ("llm-compressor", _recipe({"actorder": "group"}), "actorder"),
        ("mlx", _mlx({"bits": 4, "group_size": 32, "mode": "mxfp4"}), "mxfp4"),
        ("mlx", _mlx({"bits": 4, "group_size": 48}), "group_size=48"),
        ("mlx", _mlx(True), "not 'True'"),
        ("mlx", json.dumps({"quantization": {"group_size": 64, "bits": 4}}), "defaults"),
        ("modelopt", "{}", "list of entries"),
        ("modelopt", json.dumps({"quant_cfg": [{"enable": False}]}), "quantizer_name"),
        ("modelopt", json.dumps({"quant_cfg": [{"quantizer_name": "*", "enable": False}], "calib": 1}), "calib"),
        ("modelopt", _modelopt(_BLOCKS), "asymmetric integers"),
        ("modelopt", json.dumps({"quant_cfg": [_BLOCKS]}), "to the tool's defaults"),
        ("modelopt", _modelopt(_BLOCKS | {"parent_class": "nn.Linear"}), "parent_class"),
        ("modelopt", _modelopt(_BLOCKS | {"cfg": {"num_bits": 4, "axis": None}}), "axis=None"),
        ("modelopt", _modelopt(_BLOCKS | {"cfg": {"num_bits": 4, "block_sizes": {"-1": 64, "type": "dynamic"}}}), "sets type"),
        ("modelopt", _modelopt(_BLOCKS | {"cfg": {"num_bits": [4, 3], "axis": 0}}), "bits="),
        ("modelopt", _modelopt(_BLOCKS | {"cfg": {"num_bits": 4, "bias": {"enable": True}}}), "bias"),
        ("modelopt", _modelopt(_BLOCKS | {"cfg": [{"num_bits": 4}, {"num_bits": 8}]}), "mapping"),
        ("modelopt", _modelopt(_BLOCKS, {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8}}), "input_quantizer"),
        ("llama-quantize", "(=q4_k", "regular expression"),
        ("llama-quantize", "(?i)ffn_up=q4_k", "do not read alike"),
        ("llama-quantize", "ffn_up++=q4_k", "do not read alike"),
        ("llama-quantize", "[]f]=q4_k", "do not read alike"),
        ("llama-quantize", "[[:word:]]=q4_k", r"\[:word:\]"),
        ("llama-quantize", "ffn_up = q4_k", "without spaces"),
        # rules that match nothing
        ("llama-quantize", "ffn_up=q4_k ffn_dwn=q5_0", "ffn_dwn"),
        ("gptqmodel", json.dumps({"-:.*layers.7.*": {}, "-:.*": {}}), r"layers\.7"),
        ("llm-compressor", _recipe(ignore=["model.layers.7.mlp.up_proj"]), r"layers\.7"),
        ("mlx", json.dumps({"quantization": dict.fromkeys(NAMES, False) | {"model.layers.7.mlp.up_proj": False}}), r"layers\.7"),
        ("modelopt", _modelopt({"quantizer_name": "*layers.7*", "enable": False}), r"layers\.7"),
        # what would go on for ever, or is no reader's
        ("gptqmodel", '{"-:^((\\\\w+)+)+#$": {}, "-:(a|aa|\\\\w)+$#": {}}', "written? simpler|within|matches none"),
        ("llm-compressor", _recipe(targets=("re:a{99999999999}",)), "multiply"),
        ("autoround", '{"a": 1, "a": 2}', "twice"),
        ("mlx", '{"quantization": ' + "[" * 5000, "too deeply"),
        ("mlx", '{"quantization": ' + "9" * 5000 + "}", "4300"),
        ("llm-compressor", _recipe({"type": ["int"]}), "only int and float"),
        ("llm-compressor", _recipe(targets=({"a": 1},)), "list of texts"),
    ],
)
def test_what_is_not_understood_is_refused(name: str, text: str, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        DIALECTS[name].read(text, MODULES, INTEGERS)


def test_groups_of_a_recipe_may_not_overlap() -> None:
    text = DIALECTS["llm-compressor"].write({UP: "INT4_G64", "blk.11.ffn_up.weight": "INT3_G64"}, MODULES)
    with pytest.raises(PlanError, match="overlap"):
        DIALECTS["llm-compressor"].read(text.replace(f'"{NAMES[0]}"', '"re:.*"'), MODULES, INTEGERS)


def test_an_unknown_dialect() -> None:
    with pytest.raises(UserError, match="klingon"):
        dialect_named("klingon")


@pytest.mark.parametrize(
    "text",
    [
        "ffn_up=q4_k",
        "FFN_UP=Q4_K",  # llama.cpp puts expressions into lower case
        r"blk\.[[:digit:]]+\.ffn_up=q4_k",
        "blk.1.ffn_up=q4_k blk.11=q4_k",  # two rules to a line
        "^blk.(1|11)\\.(?!attn)=q4_k\nblk.1{1,2}.ffn_(?:up|down)=q5_0",  # the first decides
        "blk.[^.]+.ffn=q4_k",
    ],
)
def test_llama_cpp_s_rules_are_read_as_it_reads_them(text: str) -> None:
    assert DIALECTS["llama-quantize"].read(text, MODULES, INTEGERS) == {UP: "Q4_K", "blk.11.ffn_up.weight": "Q4_K"}


@pytest.mark.parametrize(
    "text", ["ffn_up=q4_k\u00a0ffn_down=q5_0", "ffn_up=q4_k\u3000", "ffn_up=q4_k\x1cffn_down=q5_0", r"(f)fn_up|(?:(a)|ffn_up)\2=q4_k"]
)
def test_what_llama_cpp_would_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(PlanError):
        DIALECTS["llama-quantize"].read(text, MODULES, INTEGERS)


@pytest.mark.slow
def test_matching_ends_when_time_is_up() -> None:
    modules = {UP: Module("model.layers.1." + 60 * "a", (256, 128), "ffn_up")}
    with pytest.raises(PlanError, match="within 2 s"):
        DIALECTS["gptqmodel"].read('{"-:.*(a|aa)+$#": {}}', modules, INTEGERS)
