"""Published scores of feed-forward channels, and the widths that their methods propose, against reimplementations of a few lines."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from bitwright.compress import Model
from bitwright.methods import SeenModel, structure_method
from bitwright.methods.published_channels import BY_CHANNELS
from bitwright.objectives.text.sampling import draw
from bitwright.progress import Silent
from bitwright.spaces import Structure
from tests.measuring import random_tokens

TOKENS = random_tokens(6, 7)
SEED = 3


@dataclass
class Part:
    """Down projection of a block on the text: inputs `(n_tokens, n_channels)`, gradients of drawn labels at its outputs `(n_tokens, n_outputs)`,
    and weights `(n_outputs, n_channels)`.
    """

    a: np.ndarray
    g: np.ndarray
    w: np.ndarray


@pytest.fixture(scope="module")
def parts(tied: Model) -> list[Part]:
    """Each block's down projection, with labels drawn for four sequences at a time."""
    downs = [block.mlp.down_proj for block in tied.module.model.layers]
    seen: dict[int, tuple[list[Tensor], list[Tensor]]] = {i: ([], []) for i in range(len(downs))}
    uses: list[tuple[Tensor, Tensor]] = []
    for n, ids in enumerate(TOKENS.batches(4)):
        uses.clear()
        handles = [down.register_forward_hook(lambda _, x, y: uses.append((x[0].detach(), y))) for down in downs]
        embedded = tied.module.get_input_embeddings()(torch.from_numpy(ids)).requires_grad_(True)
        p = tied.module(inputs_embeds=embedded).logits.softmax(dim=-1).flatten(0, 1)
        labels = draw(p.detach(), torch.Generator().manual_seed(SEED * 1_000_003 + n))
        slopes = torch.autograd.grad(-p.gather(1, labels).log().sum(), [y for _, y in uses])
        for handle in handles:
            handle.remove()
        for i, ((x, _), slope) in enumerate(zip(uses, slopes, strict=True)):
            seen[i][0].append(x.flatten(0, 1))
            seen[i][1].append(slope.flatten(0, 1))
    return [
        Part(*(torch.cat(rows).double().numpy() for rows in seen[i]), down.weight.detach().double().numpy())  # type: ignore[arg-type]
        for i, down in enumerate(downs)
    ]


def camera(part: Part) -> list[float]:
    return [float((w @ w) * (0.1 * (a @ a) + 0.9 * abs(a).max() ** 2)) for w, a in zip(part.w.T, part.a.T, strict=True)]


def mini_gpts(part: Part) -> list[float]:
    return [sum(abs(a)) / len(a) for a in part.a.T]


def small_contributions(part: Part) -> list[float]:
    shares = abs(part.a[:, None, :] * part.w)  # (n_tokens, n_outputs, n_channels)
    return [float(total) for total in (shares / shares.sum(axis=2, keepdims=True)).mean(axis=0).sum(axis=0)]


def kfac(part: Part) -> list[float]:
    n = len(part.a)
    inputs, outputs = part.a.T @ part.a / n, part.g.T @ part.g / n
    return [float(inputs[j, j] * (w @ outputs @ w)) / 2 for j, w in enumerate(part.w.T)]


GOLDEN = {"camera": camera, "mini-gpts": mini_gpts, "small-contributions": small_contributions, "kfac": kfac}


def scores(name: str, model: Model) -> dict[str, np.ndarray]:
    method = structure_method(name)
    assert method is not None
    assert method.scores is not None
    return method.scores(model, TOKENS, seed=SEED, progress=Silent())


@pytest.mark.parametrize("name", [method.name for method in BY_CHANNELS])
def test_scores_are_the_definition_s(name: str, tied: Model, parts: list[Part]) -> None:
    found = scores(name, tied)
    assert sorted(found) == [f"blk.{i}.ffn_down.weight" for i in range(len(parts))]
    for i, part in enumerate(parts):
        np.testing.assert_allclose(found[f"blk.{i}.ffn_down.weight"], GOLDEN[name](part), rtol=1e-3)


def test_contributions_sum_up_to_the_number_of_outputs(tied: Model, parts: list[Part]) -> None:
    for part, found in zip(parts, scores("small-contributions", tied).values(), strict=True):
        assert found.sum() == pytest.approx(len(part.w), rel=1e-4)


@pytest.mark.slow
def test_kfac_predicts_the_divergence_without_a_channel(tied: Model) -> None:
    """Take the channels of the first block away one at a time: summed up, their losses are the measured divergences, but for the factors."""
    found, ids, down = scores("kfac", tied)["blk.0.ffn_down.weight"], torch.from_numpy(TOKENS.ids), tied.module.model.layers[0].mlp.down_proj
    lost = []
    with torch.no_grad():
        before = tied.module(ids).logits.double().log_softmax(dim=-1)
        for c in range(down.in_features):
            handle = down.register_forward_pre_hook(lambda _, x, c=c: (x[0].index_fill(-1, torch.tensor([c]), 0.0),))  # type: ignore[misc]
            after = tied.module(ids).logits.double().log_softmax(dim=-1)
            handle.remove()
            lost.append(float((before.exp() * (before - after)).sum(dim=-1).mean()))
    assert found.sum() == pytest.approx(sum(lost), rel=0.3)
    assert np.corrcoef(found, lost)[0, 1] > 0.8


def test_weights_stay_without_gradients(tied: Model) -> None:
    scores("kfac", tied)
    assert all(parameter.grad is None for parameter in tied.module.parameters())


def proposed(name: str, by_block: tuple[np.ndarray, ...], whole: Structure) -> list[tuple[int, ...]]:
    method = structure_method(name)
    assert method is not None
    no = np.zeros((0, 0))
    seen = SeenModel(no, no, _unasked, _unasked, no, 0, no, channel_scores=by_block)
    return [kept.channels for kept in method.proposed(seen, whole, widths)]


def _unasked(*_: object) -> None:
    raise AssertionError("by scores alone")


def widths(n: int) -> list[int]:
    return [n, *range((n - 1) // 32 * 32, n // 2 - 1, -32)]


def test_camera_keeps_the_same_share_of_every_block() -> None:
    found = proposed("camera", (), Structure((2, 2), (320, 640)))
    assert found == [(320, 608), (288, 576), (288, 544), (256, 512), (256, 480), (224, 448), (192, 384), (160, 320)]


@pytest.mark.parametrize("name", ["mini-gpts", "small-contributions", "kfac"])
def test_one_threshold_for_all_blocks(name: str) -> None:
    """The scores of all blocks in one order: of a share that goes, each block loses its own that are among it, but for the steps of widths."""
    rng = np.random.default_rng(2)
    by_block = tuple(np.sort(rng.exponential(size, 320))[::-1] for size in (1.0, 0.5, 0.25))
    found = proposed(name, by_block, Structure((2,) * 3, (320,) * 3))
    everything = sorted(score for scores in by_block for score in scores)
    expected = []
    for share in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5):
        gone = set(everything[: round(share * len(everything))])
        left = [sum(score not in gone for score in scores) for scores in by_block]
        expected.append(tuple(max(160, 32 * ((n + 16) // 32)) for n in left))
    assert found == [*dict.fromkeys(expected)]
    assert all(widest >= least for widest, _, least in found)
    assert len({*found[-1]}) == 3
