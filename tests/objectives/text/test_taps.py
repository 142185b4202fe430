import numpy as np
import torch
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.engines import NATIVE_CHANNELS, model_as_held
from bitwright.objectives import Tap, Tapped, Use, is_mixture
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
