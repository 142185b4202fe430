"""Pruning configurations of EvoPress: averages are kept, levels come back, and what the files leave open is refused.

The 13 configurations of its repository were read the same way by hand; each comes back level for level (docs/dialects.md).
"""

from fractions import Fraction
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.dialects import Module
from bitwright.dialects.known import DIALECTS
from bitwright.engines import LLAMA_CPP, NATIVE
from bitwright.errors import PlanError
from bitwright.spaces import share_format
from tests.sentences import sentence

SHAPES = {"self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (1024, 4096), "mlp.up_proj": (14336, 4096), "mlp.down_proj": (4096, 14336)}
MODULES = {
    f"blk.{layer}.{part}.weight": Module(f"model.layers.{layer}.{part}", shape, part) for layer in range(8) for part, shape in SHAPES.items()
} | {"output.weight": Module("lm_head", (32000, 4096), "output")}
BLOCKS = {tensor: module for tensor, module in MODULES.items() if module.role != "output"}


def said(levels: list[int]) -> str:
    return "".join(f"{module.name}: {level}\n" for module, level in zip(BLOCKS.values(), levels, strict=True))


def n_pruned(form: str, shape: tuple[int, ...]) -> int:
    made = share_format(form)
    assert made is not None
    return shape[0] * (shape[1] - made.pattern.n_kept(shape[1]))


@given(percent=st.sampled_from([50, 60, 70]), halves=st.lists(st.integers(-2, 2), min_size=16, max_size=16), seed=st.randoms())
def test_levels_that_add_up_to_zero_keep_the_average(percent: int, halves: list[int], seed: object) -> None:
    levels = [level for half in halves for level in (half, -half)]
    seed.shuffle(levels)  # type: ignore[attr-defined]  # a random.Random
    dialect = DIALECTS[f"evopress-{percent}"]
    found = dialect.read(said(levels), MODULES, {})
    assert set(found) == set(BLOCKS)
    total = sum(n_pruned(form, MODULES[tensor].shape) for tensor, form in found.items())
    last = list(BLOCKS.values())[-1].shape[0]
    assert abs(total - Fraction(percent, 100) * sum(prod(module.shape) for module in BLOCKS.values())) <= Fraction(last, 2)
    assert dialect.write(found, MODULES) == said(levels)


def test_a_level_is_the_share_that_evopress_stores() -> None:
    """A level is 524,288 weights for Llama 3 at 50 %: 128 of each row of q, 512 of each row of k, which has a quarter of the rows."""
    zeros = [0] * len(BLOCKS)
    found = DIALECTS["evopress-50"].read(said([3, -2, *zeros[2:]]), MODULES, {})
    assert found["blk.0.self_attn.q_proj.weight"] == "BF16_S59.375"
    assert found["blk.0.self_attn.k_proj.weight"] == "BF16_S25"
    assert found["blk.0.mlp.up_proj.weight"] == "BF16_S50"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (said([0] * len(BLOCKS)) + "model.layers.9.mlp.up_proj: 1\n", r"layers\.9"),
        (said([0] * len(BLOCKS)).replace("model.layers.7.mlp.down_proj: 0\n", ""), r"layers\.7\.mlp\.down_proj"),
        (said([0] * len(BLOCKS)) + "model.layers.0.mlp.up_proj: 1\n", "each module once"),
        (said([0] * len(BLOCKS)).replace(": 0", ": 0.5", 1), "'model.layers.0.self_attn.q_proj: 0.5'"),
        (said([0, 8, *[0] * (len(BLOCKS) - 2)]), r"8 for model\.layers\.0\.self_attn\.k_proj prunes 150\.0%"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, why: str) -> None:
    with pytest.raises(PlanError, match=why) as caught:
        DIALECTS["evopress-50"].read(text, MODULES, {})
    sentence(caught.value, "")


def test_a_model_without_queries_of_its_own_has_no_width() -> None:
    modules = {"blk.0.mlp.up_proj.weight": Module("model.layers.0.mlp.up_proj", (64, 32), "ffn_up")}
    with pytest.raises(PlanError, match="width of a hidden state"):
        DIALECTS["evopress-50"].read("model.layers.0.mlp.up_proj: 0\n", modules, {})


@pytest.mark.parametrize("form", ["INT4_G64", "INT4_S50", "BF16_2OF4", "BF16_S51"])
def test_formats_that_no_level_means_are_refused(form: str) -> None:
    first = next(iter(BLOCKS))
    planned = dict.fromkeys(BLOCKS, "BF16_S50") | {first: form}
    with pytest.raises(PlanError, match=f"{form} for {first}"):
        DIALECTS["evopress-50"].write(planned, MODULES)


def test_only_targets_with_shares_are_asked() -> None:
    assert DIALECTS["evopress-50"].expresses(NATIVE.formats)
    assert not DIALECTS["evopress-50"].expresses(LLAMA_CPP.formats)
