import numpy as np
import torch

from bitwright.compress import Model
from bitwright.objectives import NO_ROUTING, Tokens, added, routing_from
from bitwright.objectives.text.routing import collect_routing
from bitwright.progress import Silent
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
