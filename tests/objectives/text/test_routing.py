import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitwright.compress import Headers, Model, ParameterSlice
from bitwright.objectives import NO_ROUTING, RouterCall, Tokens, added, hook_routers, routing_from
from bitwright.objectives.text.routing import collect_routing
from bitwright.progress import Silent
from bitwright.spaces import Tensor
from tests.measuring import random_tokens

TOKENS = random_tokens(10, 9)  # batches of 8 and of 2


def routers_directly(model: Model, tokens: Tokens) -> list[torch.Tensor]:
    """Probabilities `(n_tokens, n_experts)` of each layer's router, from the definition."""
    hidden: list[torch.Tensor] = []
    hooks = [layer.mlp.register_forward_hook(lambda _, args, __: hidden.append(args[0])) for layer in model.module.model.layers]
    with torch.inference_mode():
        model.module(torch.from_numpy(tokens.ids), use_cache=False)
    for hook in hooks:
        hook.remove()
    gates = [layer.mlp.gate.weight for layer in model.module.model.layers]
    return [(x.reshape(-1, x.shape[-1]) @ gate.T).double().softmax(dim=-1).detach() for x, gate in zip(hidden, gates, strict=True)]


def test_counts_are_those_of_the_routers_selections(mixtral: Model) -> None:
    found = collect_routing(mixtral, TOKENS, progress=Silent())
    for layer, probabilities in enumerate(routers_directly(mixtral, TOKENS)):
        top = probabilities.topk(2, dim=-1)
        for expert in range(4):
            row, sent = found.row_of(layer, expert), top.indices == expert
            share = top.values / top.values.sum(dim=-1, keepdim=True)
            assert found.n_chosen[row] == int(sent.sum())
            np.testing.assert_allclose(found.probability[row], float(top.values[sent].sum()), rtol=1e-5)
            np.testing.assert_allclose(found.mean_weight[row], float(share[sent].mean()), rtol=1e-5)
            np.testing.assert_allclose(found.frequency[row], float(sent.any(dim=1).double().mean()))
    assert found.n_at_once.tolist() == [2] * 8
    np.testing.assert_allclose(np.bincount(found.layer, found.frequency), [2, 2])


def test_logits_are_those_of_the_router_wherever_it_returns_them() -> None:
    """Llama 4 returns its scores, 0 for all experts but the best, before the logits."""
    shape = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
    config = AutoConfig.for_model("llama4_text", **shape, num_key_value_heads=2, num_local_experts=4, interleave_moe_layer_step=1)
    torch.manual_seed(0)
    module, name = AutoModelForCausalLM.from_config(config).eval(), "model.layers.0.feed_forward.router.weight"
    weight = torch.nn.init.normal_(module.get_parameter(name)).detach()
    router = Tensor("blk.0.ffn_gate_inp.weight", tuple(weight.shape), "F32")
    source = Headers("tiny", "llama4", (), (router,))  # one expert for each token
    model = Model(module, None, source, {router.name: (ParameterSlice(name, -1, range(32)),)})
    calls: list[RouterCall] = []
    with torch.inference_mode(), hook_routers(model, calls.append):
        module(torch.from_numpy(TOKENS.ids), use_cache=False)
    (call,) = calls
    torch.testing.assert_close(call.logits, call.x @ weight.T)
    assert (call.chosen[:, 0] == call.logits.argmax(dim=-1)).all()
    torch.testing.assert_close(call.weights, call.logits.softmax(dim=-1).max(dim=-1, keepdim=True).values)


def test_a_router_that_reads_its_layers_weight_without_calling_it_is_seen() -> None:
    """LongCat multiplies by the matrix of a layer in its router, and returns logits, weights and indices itself."""
    shape = {"vocab_size": 384, "hidden_size": 32, "ffn_hidden_size": 48, "num_layers": 1, "num_attention_heads": 2, "expert_ffn_hidden_size": 16}
    latent = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "head_dim": 16}
    config = AutoConfig.for_model("longcat_flash", **shape, **latent, n_routed_experts=4, zero_expert_num=2, moe_topk=2)
    torch.manual_seed(0)
    module, name = AutoModelForCausalLM.from_config(config).eval(), "model.layers.0.mlp.router.classifier.weight"
    weight = torch.nn.init.normal_(module.get_parameter(name)).detach()
    router = Tensor("model.layers.0.mlp.router.classifier.weight", tuple(weight.shape), "F32", "ffn_gate_inp")
    source = Headers("tiny", "longcat_flash", (), (router,), n_experts_used=2)
    model = Model(module, None, source, {router.name: (ParameterSlice(name, -1, range(6)),)})
    calls: list[RouterCall] = []
    with torch.inference_mode(), hook_routers(model, calls.append):
        module(torch.from_numpy(TOKENS.ids), use_cache=False)
    (call,) = calls
    torch.testing.assert_close(call.logits, call.x @ weight.T)
    assert call.chosen.shape == (TOKENS.n_tokens, 2)


def test_shares_sum_up_in_each_layer(mixtral: Model) -> None:
    found = collect_routing(mixtral, TOKENS, progress=Silent())
    np.testing.assert_allclose(np.bincount(found.layer, found.shares(found.n_chosen)), [1, 1])
    np.testing.assert_allclose(found.shares(found.probability)[:4], found.probability[:4] / found.probability[:4].sum())
    assert NO_ROUTING.shares(NO_ROUTING.weight).shape == (0,)


def test_a_dense_model_has_no_routing_and_watching_leaves_nothing_behind(dense: Model, mixtral: Model) -> None:
    def n_hooks() -> int:
        """Count the hooks on the mixture and on all modules; transformers keeps some of its own once a model was asked for its hidden states."""
        return len(torch.nn.modules.module._global_forward_hooks) + sum(len(module._forward_hooks) for module in mixtral.module.modules())

    before = n_hooks()
    assert not len(collect_routing(dense, TOKENS, progress=Silent()).layer)
    collect_routing(mixtral, TOKENS, progress=Silent())
    assert n_hooks() == before


def test_it_is_stored_as_one_array(mixtral: Model) -> None:
    found = collect_routing(mixtral, TOKENS, progress=Silent())
    again = routing_from(found.to_array())
    assert (again.n_chosen == found.n_chosen).all()
    assert (again.weight == found.weight).all()
    assert again.n_read.tolist() == [TOKENS.n_tokens] * 8


def test_parts_add_up_to_the_whole(mixtral: Model) -> None:
    parts = [Tokens(TOKENS.ids[rows], "") for rows in ([0, 3, 7], [1, 2, 4, 5, 6, 8, 9])]
    found = added([collect_routing(mixtral, part, progress=Silent()) for part in parts])
    np.testing.assert_allclose(found.to_array(), collect_routing(mixtral, TOKENS, progress=Silent()).to_array())
