"""Expected squares of rows: those of autograd, streamed as in memory, and refused where gradients are not finite."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model, Room, load
from bitwright.errors import ModelError
from bitwright.objectives import Tokens
from bitwright.predictors import expected_squares
from bitwright.predictors.sensitivity.gradients.losses import Batch, SampledLabels
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened
from tests.sentences import sentence

pytestmark = pytest.mark.slow

ONE_TOKEN = random_tokens(4, 1)  # sequences without sums over tokens


def squares(model: Model, folder: Path, tokens: Tokens) -> dict[str, np.ndarray]:
    folder.mkdir(exist_ok=True)
    with opened(model, levels_of(model, folder), space=space_of(model, ("Q4_0",)), tokens=tokens, store=folder / "a.sqlite", seed=5) as subject:
        return expected_squares(subject)


def test_rows_have_the_squared_norms_of_gradient_and_weights(tied: Model, tmp_path: Path) -> None:
    found = squares(tied, tmp_path, ONE_TOKEN)
    with opened(tied, levels_of(tied, tmp_path), space=space_of(tied, ("Q4_0",)), tokens=ONE_TOKEN, store=tmp_path / "b", seed=5) as subject:
        slope = SampledLabels().slope(subject)
    ids = torch.from_numpy(ONE_TOKEN.ids)
    (piece,) = tied.pieces["blk.0.attn_k.weight"]
    parameter = tied.module.get_parameter(piece.parameter)
    copy = parameter.detach().clone().requires_grad_(True)
    logits = torch.func.functional_call(tied.module, {piece.parameter: copy}, (ids,)).logits
    slopes = slope(logits.detach().clone(), Batch(ONE_TOKEN.ids, 0, 0))
    gradients = [torch.autograd.grad(logits[i], copy, slopes[i], retain_graph=True)[0].square().sum(dim=1) for i in range(len(ids))]
    expected = (sum(gradients) * parameter.square().sum(dim=1))[torch.from_numpy(piece.order())]
    np.testing.assert_allclose(found["blk.0.attn_k.weight"], expected.double().numpy(), rtol=1e-3)


def test_rows_of_the_head_have_the_magnitude_of_their_slope(tied: Model, tmp_path: Path) -> None:
    found = squares(tied, tmp_path, ONE_TOKEN)
    with opened(tied, levels_of(tied, tmp_path), space=space_of(tied, ("Q4_0",)), tokens=ONE_TOKEN, store=tmp_path / "b", seed=5) as subject:
        slope = SampledLabels().slope(subject)
    ids, head = torch.from_numpy(ONE_TOKEN.ids), tied.module.get_output_embeddings().get_parameter("weight").detach()
    out = tied.module(ids, output_hidden_states=True)
    x, slopes = out.hidden_states[-1].detach()[:, 0], slope(out.logits.detach().clone(), Batch(ONE_TOKEN.ids, 0, 0))[:, 0]
    expected = (slopes.abs() * x.square().sum(dim=1, keepdim=True)).sum(dim=0) * head.square().sum(dim=1)
    np.testing.assert_allclose(found["token_embd.weight"], expected.double().numpy(), rtol=1e-3)


@pytest.mark.parametrize("name", ["llama_tied", "tiny_mixtral"])
def test_a_streamed_model_has_those_of_one_in_memory(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(name)
    tokens = random_tokens(6, 6)
    known = squares(load(str(folder)), tmp_path / "in memory", tokens)
    found = squares(load(str(folder), room=Room(tmp_path, stream=True)), tmp_path / "streamed", tokens)
    assert found.keys() == known.keys()
    assert [tensor for tensor, of_rows in known.items() if not of_rows.any()] == ["token_embd.weight"] * (name == "tiny_mixtral")  # looked up alone
    for tensor, of_rows in known.items():
        np.testing.assert_allclose(found[tensor], of_rows, rtol=1e-12)


def test_gradients_that_are_not_finite_are_refused(llama_tied: Path, tmp_path: Path) -> None:
    broken = load(str(llama_tied))
    with torch.no_grad():
        broken.module.get_parameter("model.norm.weight").fill_(float("inf"))
    with pytest.raises(ModelError) as caught:
        squares(broken, tmp_path, ONE_TOKEN)
    sentence(caught.value, "importance")
