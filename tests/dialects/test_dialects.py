"""Every dialect: what it writes it reads, and what it cannot say is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.compress import Piece
from bitwright.dialects import DIALECTS, dialect_named, module_names
from bitwright.errors import PlanError, UserError

NAMES = {"output.weight": "lm_head", "blk.1.ffn_up.weight": "model.layers.1.mlp.up_proj", "blk.11.ffn_up.weight": "model.layers.11.mlp.up_proj"}
_GROUPED = [f"INT{bits}_{group}" for bits in (2, 3, 4, 5, 6) for group in ("G32", "G64", "G128")]
SAYS = {
    "autoround": [*_GROUPED, "INT7_G64", "INT4_ROW", "BF16"],
    "gptqmodel": [*_GROUPED, "INT8_G64", "INT4_ROW", "BF16"],
    "llm-compressor": [*_GROUPED, "INT8_G64", "INT4_ROW", "F16"],
    "mlx": [*_GROUPED, "INT8_G64", "BF16"],
    "llama-quantize": ["Q4_K", "IQ4_NL", "Q8_0", "BF16"],
}


@pytest.mark.parametrize("name", DIALECTS)
@given(data=st.data())
def test_what_is_written_is_read(name: str, data: st.DataObject) -> None:
    formats = data.draw(st.dictionaries(st.sampled_from(list(NAMES)), st.sampled_from(SAYS[name])))
    kept = ("F32",) if name == "llama-quantize" else ("BF16", "F16")
    read = DIALECTS[name].read(DIALECTS[name].write(formats, NAMES), NAMES)
    assert read == {tensor: form for tensor, form in formats.items() if form not in kept}


@pytest.mark.parametrize(
    ("name", "form", "why"),
    [
        ("mlx", "INT7_G64", "5, 6 or 8 bits"),
        ("mlx", "INT4_ROW", "groups of 32"),
        ("mlx", "Q4_K", "integers"),
        ("autoround", "INT8_G64", "asymmetric"),
        ("gptqmodel", "Q4_K", "integers"),
        ("llm-compressor", "IQ4_NL", "integers"),
        ("llama-quantize", "INT4_G64", "ggml"),
    ],
)
def test_what_cannot_be_said_is_named(name: str, form: str, why: str) -> None:
    with pytest.raises(PlanError, match=rf"{form} of output\.weight.*{why}"):
        DIALECTS[name].write({"output.weight": form}, NAMES)


@pytest.mark.parametrize("name", [name for name in DIALECTS if name != "llama-quantize"])
def test_an_expert_in_a_stack_has_no_module(name: str) -> None:
    names = module_names({"blk.0.ffn_up_exps.3.weight": (Piece("model.layers.0.mlp.experts.gate_up_proj", 3, 0, 8, 0),)})
    with pytest.raises(PlanError, match=r"blk\.0\.ffn_up_exps\.3\.weight"):
        DIALECTS[name].write({"blk.0.ffn_up_exps.3.weight": "INT4_G64"}, names)


def test_gptqmodel_leaves_embeddings() -> None:
    with pytest.raises(PlanError, match="embeddings"):
        DIALECTS["gptqmodel"].write({"token_embd.weight": "INT4_G64"}, {"token_embd.weight": "model.embed_tokens"})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, "{") for name in DIALECTS),
        *((name, "[]") for name in DIALECTS),
        ("mlx", '{"quantization": {"lm_head": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}}'),
        ("mlx", '{"quantization": {"lm_head": {"bits": 4, "group_size": 48}}}'),
        ("autoround", '{"lm_head": {"bits": 4, "group_size": 32, "sym": true}}'),
        ("gptqmodel", '{"+:(": {}}'),
        ("llama-quantize", "(=q4_k"),
    ],
)
def test_what_is_no_such_file_is_refused(name: str, text: str) -> None:
    with pytest.raises(PlanError):
        DIALECTS[name].read(text, NAMES)


def test_groups_of_a_recipe_may_not_overlap() -> None:
    text = DIALECTS["llm-compressor"].write({"output.weight": "INT4_G64", "blk.1.ffn_up.weight": "INT3_G64"}, NAMES)
    with pytest.raises(PlanError, match="overlap"):
        DIALECTS["llm-compressor"].read(text.replace('"lm_head"', '"re:.*"'), NAMES)


def test_an_unknown_dialect() -> None:
    with pytest.raises(UserError, match="klingon"):
        dialect_named("klingon")
