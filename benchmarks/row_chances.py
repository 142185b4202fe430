"""Standard errors that samples of rows of the default size add to prices, computed from the products of all rows: drawn with equal chances, by the
light pass, and by whole gradients of the same sequences.

With y_r the product of row r and π_r its chance, the variance of a price's estimate Σ y_r² / π_r is taken to be Σ (1/π_r − 1) y_r⁴, as if rows were
drawn independently of each other; with equal chances, that of a fixed number of rows. Of an embedding that is also the head, only the products of the
head are counted.

usage: python benchmarks/row_chances.py MODEL --calibration TEXT --out FOLDER [--formats Q8_0,Q4_0] [--sequences 8,64]
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

import bitwright as bw
from bitwright.compress import matrix_shape
from bitwright.compress.codecs.row_sample import chances_of_rows
from bitwright.objectives import Tap, Tapped, Tokens, Use
from bitwright.pipeline.loaded_run import set_up
from bitwright.pipeline.pricing.price_table import subject_of
from bitwright.pipeline.pricing.priced_rows import ERROR_WANTED
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.pipeline.settings import ALL_ROWS
from bitwright.predictors import Subject, expected_squares, rows_wanted
from bitwright.predictors.sensitivity.gradients.losses import Batch, SampledLabels
from bitwright.predictors.sensitivity.gradients.sweep import SEQUENCES_AT_ONCE
from bitwright.predictors.sensitivity.row_samples import looked_up
from bitwright.progress import Silent

Rows = NDArray[np.float64]
_CHUNK_WEIGHTS = 1 << 22
_SHARE_OF_HEAD = 4


def main() -> None:
    """Print a line for each format and way to draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--formats", default="Q8_0,Q4_0")
    parser.add_argument("--sequences", default="8,64")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    n_sequences, length = map(int, given.sequences.split(","))
    formats = tuple(given.formats.split(","))
    settings = bw.Settings(
        given.model,
        calibration=given.calibration,
        formats=formats,
        n_calibration=n_sequences,
        sequence_length=length,
        price_rows=ALL_ROWS,
        disk_limit_bytes=1 << 50,
    )
    run = set_up(settings, given.out, device="cpu", progress=Silent())
    subject = subject_of(run, whole_space(run))
    first = Tokens(subject.tokens.ids[:SEQUENCES_AT_ONCE], subject.tokens.text)
    by_pass, (squares, gradients) = expected_squares(replace(subject, tokens=first)), row_squares(subject, formats)
    ways: dict[str, Mapping[str, Rows] | None] = {"equal": None, "light pass": by_pass, "gradients": gradients}
    heads = set(looked_up(run.model, subject.tokens))  # the embedding, whose products of the head alone are here
    print(f"{'format':8s}{'drawn by':>12s}{'median':>9s}{'nine in ten':>13s}{'largest':>9s}{'sum':>8s}{'head':>8s}")
    for form in formats:
        for way, sizes in ways.items():
            found = {name: added_error(subject, name, y, sizes, heads) for (name, of), y in squares.items() if of == form and y.any()}
            shares, variances, prices = (np.array(column) for column in zip(*found.values(), strict=True))
            head = next((found[name][0] for name in heads if name in found), np.nan)
            told = f"{np.median(shares):9.1%}{np.quantile(shares, 0.9):13.1%}{shares.max():9.1%}"
            print(f"{form:8s}{way:>12s}{told}{np.sqrt(variances.sum()) / prices.sum():8.1%}{head:8.1%}", flush=True)


def added_error(subject: Subject, name: str, y: Rows, sizes: Mapping[str, Rows] | None, heads: set[str]) -> tuple[float, float, float]:
    """Return the relative standard error of a tensor's price, its variance, and the price, given the squares `y` `(n_rows,)` of its rows."""
    tensor = next(tensor for tensor in subject.model.tensors if tensor.name == name)
    n_drawn = max(rows_wanted(tensor, ERROR_WANTED), len(y) // _SHARE_OF_HEAD * (name in heads))
    chances = chances_of_rows(np.ones(len(y)) if sizes is None else sizes[name], n_drawn)
    variance = float(((1 / chances - 1) * (y - y.mean() * (sizes is None)) ** 2).sum())
    return np.sqrt(variance) / y.sum(), variance, float(y.sum())


def row_squares(subject: Subject, formats: tuple[str, ...]) -> tuple[dict[tuple[str, str], Rows], dict[str, Rows]]:
    """Return the squared products of every row `(n_rows,)`, summed over the sequences, by tensor and format; and by tensor the squared norms of the
    gradients of the first batch times those of the weights.
    """
    tap, slope, step = RowSquares(subject, formats), SampledLabels().slope(subject), SEQUENCES_AT_ONCE
    gradients: dict[str, Rows] = {}
    for i, ids in enumerate(subject.tokens.batches(step)):
        tap.n_sequences = len(ids)
        with Tapped(subject.model, tap):
            logits = subject.model.module(torch.from_numpy(ids), use_cache=False).logits.float()
            logits.backward(slope(logits.detach(), Batch(ids, i, i * step)))
        gradients = gradients or {name: of_rows.copy() for name, of_rows in tap.gradients.items()}
    return tap.squares, gradients


class RowSquares(Tap):
    """Squares of the product of every row with every change."""

    def __init__(self, subject: Subject, formats: tuple[str, ...]) -> None:
        self._subject, self.n_sequences = subject, 0
        space = subject.space
        self._tensors = {tensor.name: tensor for unit in space.units for tensor in unit.tensors}
        offered = {tensor.name: row for unit, row in zip(space.units, space.offered, strict=True) for tensor in unit.tensors}
        self._formats = {
            name: [form for form, of in zip(space.formats, row, strict=True) if of and form.name in formats] for name, row in offered.items()
        }
        self.squares, self.gradients = dict[tuple[str, str], Rows](), dict[str, Rows]()

    def linear(self, uses: list[Use], x: Torch, y: Torch) -> None:
        """Add a use when the gradient at its output comes."""
        decided = [use for use in uses if use.tensor in self._tensors]
        if decided and y.requires_grad:
            y.register_hook(lambda slopes: self._add(decided, x.detach(), slopes))  # type: ignore[no-untyped-call]

    def embedding(self, uses: list[Use], ids: Torch, y: Torch) -> None:  # noqa: ARG002
        """Let gradients begin at a look-up."""
        if y.is_leaf:
            y.requires_grad_(True)

    @torch.no_grad()
    def _add(self, uses: list[Use], x: Torch, slopes: Torch) -> None:
        inputs, outputs = (rows.reshape(self.n_sequences, -1, rows.shape[-1]).float() for rows in (x, slopes))
        for use in uses:
            tensor, matrix = self._tensors[use.tensor], use.piece.matrix(self._subject.model.module.get_parameter(use.piece.parameter).detach())
            step = max(1, _CHUNK_WEIGHTS // tensor.shape[-1])
            for start in range(0, len(use.order), step):
                order = torch.from_numpy(use.order[start : start + step])
                rows, current = use.first_row + start + np.arange(len(order)), matrix[order].float()
                gradient = torch.bmm(outputs[:, :, order].transpose(1, 2), inputs)  # (n_sequences, n_rows, n_columns)
                norms = gradient.square().sum(dim=(0, 2)) * current.square().sum(dim=1)
                self.gradients.setdefault(use.tensor, np.zeros(matrix_shape(tensor)[0]))[rows] += norms.double().numpy()
                for form in self._formats[use.tensor]:
                    weights = torch.from_numpy(self._subject.levels.some_rows(tensor, form, rows))
                    y = torch.einsum("src,rc->sr", gradient, use.piece.to_module(weights) - current).double().square().sum(dim=0)
                    self.squares.setdefault((use.tensor, form.name), np.zeros(matrix_shape(tensor)[0]))[rows] += y.numpy()


if __name__ == "__main__":
    main()
