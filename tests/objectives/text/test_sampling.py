"""Text sampled from a model itself, and the importance matrix of the passes that sample it."""

import numpy as np
import pytest
import scipy
import torch

from bitwright.compress import Model
from bitwright.objectives import Shape, collect_importance, draw, sample_texts, sample_with_importance
from bitwright.objectives.text import sampling, token_reader
from bitwright.progress import Silent


def sampled(model: Model, shape: Shape, seed: int) -> np.ndarray:
    texts = sample_texts(model, shape, seed=seed, progress=Silent())
    assert (len(texts.calibration.ids), len(texts.held_out.ids)) == (shape.n_calibration, shape.n_held_out)
    assert str(seed) in texts.calibration.text
    return np.concatenate([texts.calibration.ids, texts.held_out.ids])


def test_the_seed_decides_the_sampled_text(tied: Model) -> None:
    first, again, other = (sampled(tied, Shape(3, 2, 6), seed) for seed in (7, 7, 8))
    assert first.tolist() == again.tolist()
    assert (first[:, 0] == tied.tokenizer.bos_token_id).all()
    assert first[:, 1:].tolist() != other[:, 1:].tolist()
    assert len({tuple(row) for row in first.tolist()}) == 5


def test_tokens_are_sampled_from_the_predictions(tied: Model) -> None:
    """Every token is drawn from the distribution after all tokens before it, by a direct computation without a cache."""
    found = torch.from_numpy(sampled(tied, Shape(3, 2, 8), 7))
    generator = torch.Generator().manual_seed(7)
    with torch.inference_mode():
        for t in range(1, 8):
            probabilities = tied.module(found[:, :t], use_cache=False).logits[:, -1].softmax(dim=-1)
            assert draw(probabilities, generator)[:, 0].tolist() == found[:, t].tolist()


def test_many_sequences_are_all_different(tied: Model) -> None:
    found = sampled(tied, Shape(60, 50, 6), 0)
    assert len({tuple(row) for row in found.tolist()}) > 105  # a second batch that repeated the first would leave 96


# --- importance


def test_the_importance_of_the_calibration_part_is_seen_while_it_is_sampled(tied: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five sequences of which three calibrate are read two at a time, so that a part of those read together is held out."""
    monkeypatch.setattr(sampling, "_SAMPLED_AT_ONCE", 2)
    shape = Shape(3, 2, 8)
    texts, found = sample_with_importance(tied, shape, seed=7, progress=Silent())
    expected = collect_importance(tied, texts.calibration, progress=Silent())
    assert texts.held_out.ids.tolist() == sample_texts(tied, shape, seed=7, progress=Silent()).held_out.ids.tolist()
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, rtol=1e-4)


def test_there_is_none_where_passes_do_not_show_it(tied: Model, mixtral: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not sample_with_importance(mixtral, Shape(2, 1, 4), seed=0, progress=Silent())[1]
    assert not sample_with_importance(tied, Shape(0, 1, 4), seed=0, progress=Silent())[1]
    monkeypatch.setattr(token_reader, "_KEPT", ())  # a model that keeps nothing reads all tokens again
    assert not sample_with_importance(tied, Shape(2, 1, 4), seed=0, progress=Silent())[1]


# --- drawing


def test_drawing_follows_the_distribution() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.25, 0.0, 0.125, 0.125])
    found = draw(probabilities.expand(20_000, -1), torch.Generator().manual_seed(0))
    assert found.shape == (20_000, 1)
    counts = np.bincount(found[:, 0].numpy(), minlength=6)
    assert counts[[0, 3]].tolist() == [0, 0]
    assert scipy.stats.chisquare(counts[[1, 2, 4, 5]], 20_000 * np.array([0.5, 0.25, 0.125, 0.125])).pvalue > 0.01


def test_rows_are_drawn_independently_of_each_other() -> None:
    probabilities = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.5, 0.5]])
    found = torch.cat([draw(probabilities, torch.Generator().manual_seed(seed)) for seed in range(40)], dim=1)
    assert found[:3].unique(dim=1).tolist() == [[1], [0], [2]]
    assert found[3].unique().tolist() == [1, 2]


@pytest.mark.parametrize("scale", [1.0, 0.999, 1e-6, 1e6])
def test_drawing_stays_within_the_vocabulary(scale: float) -> None:
    """The cumulative sum of many small probabilities ends above or below one."""
    probabilities = torch.rand((400, 5_000), generator=torch.Generator().manual_seed(1))
    probabilities *= scale / probabilities.sum(dim=-1, keepdim=True)
    found = draw(probabilities, torch.Generator().manual_seed(2))
    assert 0 <= int(found.min()) < 500
    assert 4_500 < int(found.max()) < 5_000


def test_the_largest_threshold_draws_the_last_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor([[1.0], [2.0], [float("nan")]]))
    assert draw(torch.full((3, 7), 1 / 7), torch.Generator())[:, 0].tolist() == [6, 6, 6]
