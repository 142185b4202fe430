from transformers import AutoConfig, AutoModelForCausalLM

from bitwright.compress.models.modules.widened_scales import widened_layers

_LAYER = "model.layers.0.mlp.up_proj.weight"


def widened(*kept: str) -> frozenset[str]:
    settings = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **settings))
    module._keep_in_fp32_modules_strict = set(kept)
    return widened_layers(module, [_LAYER, "lm_head.weight"])


def test_layers_whose_scales_alone_stay_wide_are_named() -> None:
    assert widened() == frozenset()
    assert widened("e_score_correction_bias") == frozenset()
    assert widened("scale") == {_LAYER, "lm_head.weight"}
    assert widened("scale", "up_proj") == {"lm_head.weight"}
