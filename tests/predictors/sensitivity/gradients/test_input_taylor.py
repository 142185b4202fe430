from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Levels, Model, measure_distortion
from bitwright.objectives import Tokens
from bitwright.predictors.sensitivity.gradients.input_taylor import taylor_scores
from bitwright.predictors.sensitivity.ranked_scores import scored_table
from bitwright.progress import Silent
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import levels_of, random_tokens, space_of
from tests.predictors.subjects import opened


class TestScoredTable(TableContract):
    def table(self, model: Model, levels: Levels, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        distortion = measure_distortion(space, levels, progress=Silent())
        with opened(model, levels, space=space, tokens=tokens, store=folder / "a.sqlite") as subject:
            return scored_table(taylor_scores(subject), space, relative_error=distortion.plain)


@pytest.mark.parametrize("name", ["tied", "mixtral"])
def test_scores_are_autograd_s(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The gradient of the text's summed loss with respect to what each block is given, by way of the hidden states that transformers lists."""
    model: Model = request.getfixturevalue(name)
    space, tokens = space_of(model, ("Q4_0",)), random_tokens(6, 7)
    with opened(model, levels_of(model, tmp_path), space=space, tokens=tokens, store=tmp_path / "a") as subject:
        found = taylor_scores(subject)
    ids = torch.from_numpy(tokens.ids)
    embedded = model.module.get_input_embeddings()(ids).requires_grad_(True)
    out = model.module(inputs_embeds=embedded, output_hidden_states=True)
    total = torch.nn.functional.cross_entropy(out.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    states = out.hidden_states[:2]
    slopes = torch.autograd.grad(total, states)
    for layer, (x, g) in enumerate(zip([state.detach() for state in states], slopes, strict=True)):
        expected = float((x.square().sum(dim=-1) * g.square().sum(dim=-1)).mean()) / x.shape[-1]
        np.testing.assert_allclose(found[[unit.layer == layer for unit in space.units]], expected, rtol=1e-3)
    assert found[[unit.layer < 0 for unit in space.units]].tolist() == [found.max()] * sum(unit.layer < 0 for unit in space.units)


def test_it_predicts_the_effect_of_noise(tied: Model, tmp_path: Path) -> None:
    """Relative noise of size ε before the first block changes the loss of a sequence by ε² · score · length in the mean square."""
    space, tokens, size = space_of(tied, ("Q4_0",)), random_tokens(1, 12), 1e-3
    with opened(tied, levels_of(tied, tmp_path), space=space, tokens=tokens, store=tmp_path / "a") as subject:
        score = taylor_scores(subject)[next(u for u, unit in enumerate(space.units) if unit.layer == 0)]
    ids, generator = torch.from_numpy(tokens.ids), torch.Generator().manual_seed(0)
    embedded = tied.module.get_input_embeddings()(ids)
    noise = torch.randn((200, *embedded.shape[1:]), generator=generator) * embedded.norm(dim=-1, keepdim=True) / embedded.shape[-1] ** 0.5

    def losses(inputs: torch.Tensor) -> torch.Tensor:
        logits = tied.module(inputs_embeds=inputs).logits.double()
        return -logits[:, :-1].log_softmax(dim=-1).gather(-1, ids[:, 1:, None].expand(len(inputs), -1, -1)).sum(dim=(1, 2))

    squares = ((losses(embedded + size * noise) - losses(embedded)) ** 2).mean()
    assert float(squares) == pytest.approx(size**2 * score * tokens.ids.shape[1], rel=0.3)
