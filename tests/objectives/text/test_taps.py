import numpy as np
import pytest
import torch
from torch import Tensor as Torch
from transformers import AutoConfig, AutoModelForCausalLM

from bitwright.compress import Headers, Model, ParameterSlice
from bitwright.engines import NATIVE_CHANNELS, model_as_held
from bitwright.objectives import Tap, Tapped, Use, is_mixture
from bitwright.spaces import Tensor
from tests.measuring import random_tokens


class Seen(Tap):
    """Every use, with what went in and came out."""

    def __init__(self) -> None:
        self.linears: list[tuple[Use, Torch, Torch]] = []
        self.embeddings: list[tuple[Use, Torch, Torch]] = []

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        self.linears += [(use, x.detach().clone(), y.detach().clone()) for use in uses]

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        self.embeddings += [(use, ids.clone(), y.detach().clone()) for use in uses]


def observed(model: Model) -> Seen:
    seen, ids = Seen(), torch.from_numpy(random_tokens(2, 12).ids)
    with torch.inference_mode():
        before = model.module(ids, use_cache=False).logits
        with Tapped(model, seen):
            tapped = model.module(ids, use_cache=False).logits
        n_seen = len(seen.linears)
        model.module(ids, use_cache=False)
    torch.testing.assert_close(tapped, before)
    assert len(seen.linears) == n_seen, "told of a use outside the block"
    return seen


def test_products_with_a_vector_are_no_uses_and_go_on(dense: Model) -> None:
    matrix, vector, seen = torch.eye(3), torch.arange(3.0), Seen()
    with Tapped(dense, seen):
        for product in (torch.matmul(matrix, vector), matrix @ vector, vector @ vector):
            assert product.shape in {(3,), ()}
    assert not seen.linears


def test_a_dense_model_uses_each_matrix_once(dense: Model) -> None:
    seen = observed(dense)
    assert sorted(use.tensor for use, _, _ in seen.linears) == sorted(set(dense.pieces) - {"token_embd.weight"})
    assert [use.tensor for use, _, _ in seen.embeddings] == ["token_embd.weight"]
    assert not is_mixture(dense)


def test_a_tied_matrix_is_seen_in_both_of_its_uses(tied: Model) -> None:
    seen = observed(tied)
    assert sorted(use.tensor for use, _, _ in seen.linears) == sorted(tied.pieces)
    assert [use.tensor for use, _, _ in seen.embeddings] == ["token_embd.weight"]


def test_outputs_are_inputs_times_the_engine_rows(dense: Model, mixtral: Model) -> None:
    """`first_row` and `order` say where the engine's rows lie, also where the engine reorders heads or stacks experts."""
    for model in (dense, mixtral):
        tensors = {tensor.name: tensor for tensor in model.tensors}
        for use, x, y in observed(model).linears:
            shape = tensors[use.tensor].shape
            rows = model.source.read(tensors[use.tensor]).reshape(-1, *shape[-2:])[use.group]
            first = use.first_row - use.group * shape[-2]
            engine = torch.from_numpy(rows[first : first + len(use.order)])
            torch.testing.assert_close(y[..., use.order], x @ engine.T, rtol=1e-4, atol=1e-4)


def test_looked_up_rows_are_the_engine_rows(tied: Model) -> None:
    table = next(tensor for tensor in tied.tensors if tensor.name == "token_embd.weight")
    ((use, ids, y),) = observed(tied).embeddings
    assert use.order.tolist() == list(range(table.shape[0]))
    np.testing.assert_array_equal(y.numpy(), tied.source.read(table)[ids.numpy()])


def test_looked_up_rows_may_be_scaled_in_place_and_still_have_a_gradient(tied: Model) -> None:
    found: list[Torch] = []

    class Watched(Seen):
        def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
            found.append(y.requires_grad_(True))

    with torch.enable_grad(), Tapped(tied, Watched()):
        rows = torch.nn.functional.embedding(torch.tensor([3, 5]), tied.module.get_input_embeddings().weight)
        rows *= 2
    rows.sum().backward()
    assert torch.equal(found[0].grad, torch.full_like(found[0], 2))


def test_uses_name_their_expert(mixtral: Model) -> None:
    assert is_mixture(mixtral)
    seen = observed(mixtral)
    for name, pieces in mixtral.pieces.items():
        if len(pieces) > 1:
            uses = [(use, x) for use, x, _ in seen.linears if use.tensor == name]
            assert {use.group for use, _ in uses} <= {0, 1, 2, 3}
            assert len({use.group for use, _ in uses}) == len(uses) > 1
            assert sum(len(x) for _, x in uses) == 2 * 12 * 2  # two experts for each of 24 tokens


def test_columns_come_with_their_part_of_the_input(dense: Model, mixtral: Model) -> None:
    for whole in (dense, mixtral):
        model = model_as_held(whole, NATIVE_CHANNELS)
        tensors = {tensor.name: tensor for tensor in model.tensors}
        products: dict[str, Torch] = {}
        outputs: dict[str, Torch] = {}
        for use, x, y in observed(model).linears:
            rows = torch.from_numpy(model.source.read(tensors[use.tensor]))
            assert x.shape[-1] == rows.shape[1]
            if "ffn_down" in use.tensor:
                down = use.tensor.partition(".part.")[0]
                products[down] = products.get(down, torch.zeros_like(y)) + x @ rows.T
                outputs[down] = y
            else:
                torch.testing.assert_close(y[..., use.order], x @ rows.T, rtol=1e-4, atol=1e-4)
        assert outputs
        for down, y in outputs.items():
            torch.testing.assert_close(y, products[down], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "settings", "parameter"),
    [
        ("gpt2", {"n_embd": 32, "n_head": 2, "n_inner": 48, "n_positions": 32}, "transformer.h.{}.mlp.c_proj.weight"),
        ("gpt_oss", {"num_local_experts": 3, "num_experts_per_tok": 2, "head_dim": 16}, "model.layers.{}.mlp.experts.down_proj"),
        ("llama4_text", {"num_local_experts": 3, "interleave_moe_layer_step": 1, "head_dim": 16}, "model.layers.{}.feed_forward.experts.down_proj"),
    ],
)
def test_a_matrix_that_multiplies_from_the_right_is_seen_with_its_input(family: str, settings: dict[str, int], parameter: str) -> None:
    shape = {"vocab_size": 384, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape | settings)).eval()
    tensors, pieces = [], {}
    for name in (parameter.format(layer) for layer in range(2)):
        weight = module.get_parameter(name)
        torch.nn.init.normal_(weight)
        experts = range(len(weight)) if weight.dim() == 3 else [-1]
        tensors.append(Tensor(name, tuple(weight.mT.shape), "F32"))
        pieces[name] = tuple(ParameterSlice(name, expert, range(weight.shape[-1]), transposed=True) for expert in experts)
    model = Model(module, None, Headers("tiny", family, (), tuple(tensors)), pieces)
    seen = observed(model)
    assert {use.tensor for use, _, _ in seen.linears} == set(pieces)
    for use, x, y in seen.linears:
        expected = x @ use.piece.to_engine(module.get_parameter(use.tensor).detach()).T
        bias = y - expected
        torch.testing.assert_close(bias, bias[:1].expand_as(bias), rtol=1e-3, atol=1e-3)
