"""A mixture whose routers choose by a correction, as DeepSeek-V3's do, from the search to what its engine loads."""

from pathlib import Path

import numpy as np
import pytest
import torch

import bitwright as bw
from bitwright.compress import load
from bitwright.errors import UserError
from bitwright.objectives import hook_routers
from bitwright.objectives.text.routing import collect_routing
from bitwright.pipeline.verbs import search
from bitwright.progress import Silent
from tests.compress import tiny_models as tiny
from tests.measuring import random_tokens
from tests.model_fixtures import saved
from tests.runs import BRIEF, small
from tests.sentences import sentence


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model_type, settings, _ = tiny.FAMILIES["deepseek-v3"]
    return saved(tmp_path_factory.mktemp("models") / "deepseek-v3", model_type, settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "formats"), [("llama.cpp", ("Q8_0", "Q4_0")), ("native", ("INT2_ROW", "INT8_ROW")), ("transformers", ("W4_G32", "W8_G32"))]
)
def test_what_was_built_keeps_every_promise(target: str, formats: tuple[str, ...], deepseek: Path, tmp_path: Path) -> None:
    settings = small(deepseek, target=target, formats=formats, n_calibration=4, n_held_out=2)
    fitted = bw.fit(settings, bw.parse_budget("14bpw"), tmp_path / "run", by=BRIEF)
    assert fitted.check.broken == ()
    own = {
        "model.layers.1.self_attn.kv_a_proj_with_mqa.weight",
        "model.layers.1.self_attn.kv_b_proj.weight",
        "model.layers.2.self_attn.q_b_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.1.mlp.shared_experts.up_proj.weight",
    }
    in_gguf = {"blk.1.attn_kv_a_mqa.weight", "blk.2.attn_q_b.weight", "blk.0.ffn_down.weight", "blk.1.ffn_up_shexp.weight"}
    assert (in_gguf if target == "llama.cpp" else own) <= set(fitted.plan.formats)
    assert "blk.1.attn_kv_b.weight" not in fitted.plan.formats


def test_the_probability_of_an_expert_is_a_sigmoid(deepseek: Path) -> None:
    model, tokens = load(str(deepseek)), random_tokens(2, 12)
    routed = []
    with hook_routers(model, routed.append), torch.inference_mode():
        model.module(torch.from_numpy(tokens.ids), use_cache=False)
    chosen, logits = routed[0].chosen.reshape(-1, 2), routed[0].logits.double()
    expected = np.bincount(chosen.reshape(-1).numpy(), logits.sigmoid().gather(-1, chosen).reshape(-1).numpy(), 8)
    routing = collect_routing(model, tokens, progress=Silent())
    np.testing.assert_allclose(routing.probability[routing.layer == routed[0].layer], expected, rtol=1e-6)


def test_no_expert_of_it_can_be_dropped(deepseek: Path, tmp_path: Path) -> None:
    settings = small(deepseek, target="native", formats=("INT4_ROW",), structure=("experts",), n_calibration=4, n_held_out=2)
    with pytest.raises(UserError) as error:
        search(settings, tmp_path / "run")
    sentence(error.value, "no biases or corrections")
