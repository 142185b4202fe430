"""Text sampled from a model itself, and the importance matrix on it from the same passes.

Data-free calibration after LLM-QAT (Liu et al., 2023), without its greedy start. Each token of the text passes the model once while it is sampled, so
the inputs of every matrix are seen there, and no pass of their own is needed for their mean squares.
"""

from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress import Model
from bitwright.objectives.text.importance import InputSquares
from bitwright.objectives.text.taps import Tap, Tapped, Use, is_mixture
from bitwright.objectives.text.token_reader import TokenReader
from bitwright.objectives.text.tokens import Shape, Texts, Tokens, embedding_rows, require_first_token
from bitwright.progress import Progress

_SAMPLED_AT_ONCE = 96

Importance = dict[str, NDArray[np.float32]]


def sample_texts(model: Model, shape: Shape, *, seed: int, progress: Progress) -> Texts:
    """Sample text from the model itself at temperature 1: `shape.n_calibration + shape.n_held_out` independent sequences.

    Every sequence begins with the beginning-of-text token.
    """
    return _sample_texts(model, shape, None, seed=seed, progress=progress)


def sample_with_importance(model: Model, shape: Shape, *, seed: int, progress: Progress) -> tuple[Texts, Importance]:
    """Return the same, and the importance matrix on the calibration text as `collect_importance` returns it, to float rounding.

    It is empty where the passes do not show it: the experts of a mixture mix the sequences, some models read a text anew for every token, and where
    an input is not finite `collect_importance` says which.
    """
    squares = None if is_mixture(model) else InputSquares(model)
    first = _OfFirst(squares, shape.n_calibration) if squares is not None and shape.n_calibration else None
    texts = _sample_texts(model, shape, first, seed=seed, progress=progress)
    means = squares.means() if squares is not None and first is not None and first.is_fair else {}
    return texts, means if all(np.isfinite(of_tensor).all() for of_tensor in means.values()) else {}


class _OfFirst(Tap):
    """Tap that shows `tap` the first `n_first` sequences of a text, of which `n_read` from `start` on are read together, one token at a time.
    `is_fair` as long as inputs had one row for each sequence.
    """

    def __init__(self, tap: InputSquares, n_first: int) -> None:
        self._tap, self._n_first = tap, n_first
        self.start, self.n_read, self.is_fair = 0, 0, True

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        """Show the rows of the first sequences of the inputs `x` `(n_read, ..., n_columns)`."""
        rows = x.reshape(-1, x.shape[-1])
        self.is_fair &= len(rows) == self.n_read
        if self.is_fair and self.start < self._n_first:
            self._tap.linear(uses, rows[: self._n_first - self.start], y)

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:
        """Ignore a look-up, which has no input channels."""


def _sample_texts(model: Model, shape: Shape, tap: _OfFirst | None, *, seed: int, progress: Progress) -> Texts:
    n, drawn = shape.n_calibration + shape.n_held_out, []
    generator = torch.Generator().manual_seed(seed)
    with progress.stage("Sampling text from the model itself", n * shape.length) as advance:
        for start in range(0, n, _SAMPLED_AT_ONCE):
            n_read = min(_SAMPLED_AT_ONCE, n - start)
            if tap is not None:
                tap.start, tap.n_read = start, n_read
            drawn.append(_sample(model, n_read, shape.length, generator=generator, tap=tap))
            advance(drawn[-1].size)
    ids = np.concatenate(drawn)
    name = f"sampled from the model (seed {seed})"
    return Texts(Tokens(ids[: shape.n_calibration], name), Tokens(ids[shape.n_calibration :], name))


@torch.inference_mode()
def _sample(model: Model, n: int, length: int, *, generator: torch.Generator, tap: Tap | None) -> NDArray[np.int64]:
    """Sample `n` sequences `(n, length)` token by token; the last token is read only for the tap."""
    first = require_first_token(model.tokenizer, embedding_rows(model))
    ids = torch.full((n, 1), first, dtype=torch.int64, device=model.device)
    drawn, reader = [ids], TokenReader(model.module)
    with Tapped(model, tap) if tap is not None else nullcontext():
        for _ in range(length - 1):
            probabilities = reader.read(ids).float().softmax(dim=-1)
            ids = draw(probabilities, generator).to(model.device)
            drawn.append(ids)
        if tap is not None:
            reader.read(ids)
    sequences: NDArray[np.int64] = torch.cat(drawn, dim=1).cpu().numpy()
    return sequences


def draw(probabilities: Torch, generator: torch.Generator) -> Torch:
    """Draw one index for each row of `probabilities` `(n, n_choices)`: `(n, 1)` int64, by inverting the cumulative distribution."""
    cumulative = probabilities.detach().cpu().cumsum(dim=-1)
    thresholds = torch.rand((len(cumulative), 1), generator=generator) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, thresholds).clamp(max=cumulative.shape[-1] - 1)
