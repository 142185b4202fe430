"""Block-output error: squared error of a decoder block's output with one unit in one format, on the original's inputs.

    E‖F(x) − F(x; one unit in one format)‖² over the tokens of the text

The block F is run alone on its recorded input. For an expert this is ε of MC-MoE (Huang et al., "Mixture Compressor", ICLR 2025) squared, as by that
paper's exponent γ = 2, over all tokens at once instead of batch by batch, and after the residual connection, which makes no difference. Divided by
the power of the output it is comparable between blocks, unlike the plain norms of MC-MoE.

A unit outside the blocks gets its layer-output error: that of the row looked up, or of the logits.

Memory: the hidden states of all tokens before and after one block. Cost: two forward passes over the tokens, a third if a unit lies outside the
blocks, and one forward pass of one block for each pair: with L blocks 1/L of the cost of measuring every pair.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch
from torch.nn import Module

from bitwright.compress import applied, planned_weights
from bitwright.objectives import decoder_blocks
from bitwright.predictors.sensitivity.activations.input_moments import OutputErrors
from bitwright.predictors.sensitivity.activations.layer_output import layer_output_errors
from bitwright.predictors.sensitivity.block_hooks import Call, hook_blocks, run_subject
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.subject import Subject


def block_output_errors(subject: Subject) -> OutputErrors:
    """Measure E‖F(x) − F(x; changed)‖² of every unit and format, and E‖F(x)‖² of every unit."""
    space = subject.space
    found = np.full((len(space.units), len(space.formats) + 1, 2), np.nan)
    outside = [u for u, unit in enumerate(space.units) if unit.layer < 0]
    if outside:
        errors = layer_output_errors(_of(subject, outside))
        found[outside] = np.concatenate([errors.changed, errors.original[:, None]], axis=1)
    n_pairs = int(space.offered.sum() - space.offered[outside].sum())
    with subject.progress.stage("Running every block alone", n_pairs) as advance:
        for step in _steps(subject):
            within = [u for u, unit in enumerate(space.units) if unit.layer == step.index]
            found[within] = cached(subject, f"block output/{step.index}", partial(_of_block, subject, step, within))
            advance(int(space.offered[within].sum()))
    return OutputErrors(found[:, :-1], found[:, -1])


@dataclass(frozen=True, eq=False)
class _Step:
    """Decoder block `index` with its inputs and outputs of each batch, and its other keyword arguments `given`, by the number of sequences."""

    index: int
    block: Module
    inputs: list[Torch]
    outputs: list[Torch]
    given: dict[int, dict[str, Any]]


def _steps(subject: Subject) -> Iterator[_Step]:
    """Yield the blocks in order, each on the outputs of the one before it."""
    hidden: list[Torch] = []
    given: dict[int, dict[int, dict[str, Any]]] = {}  # a block's other arguments depend only on the shape of a batch

    def record(call: Call) -> None:
        given.setdefault(call.index, {})[len(call.x)] = call.given
        if call.index == 0:
            hidden.append(call.x)

    with hook_blocks(subject.model, record):
        run_subject(subject, "Recording the inputs of the first block")
    for i, block in enumerate(decoder_blocks(subject.model)):
        outputs = [_run(block, x, given[i]) for x in hidden]
        yield _Step(i, block, hidden, outputs, given[i])
        hidden = outputs


@torch.inference_mode()
def _run(block: Module, x: Torch, given: dict[int, dict[str, Any]]) -> Torch:
    y: Torch = block(x, **given[len(x)])
    return y


def _of_block(subject: Subject, step: _Step, units: list[int]) -> NDArray[np.float64]:
    """Return the mean squared errors `(len(units), n_formats + 1, 2)` of units of one block, the power of its output last; the column of look-ups is
    0.
    """
    space, rows = subject.space, np.zeros((len(units), len(subject.space.formats) + 1, 2))
    rows[:, :-1][~subject.space.offered[units]] = np.nan
    rows[:, -1, 0] = sum(float(y.double().square().sum()) for y in step.outputs)
    for row, u in zip(rows, units, strict=True):
        for f in np.flatnonzero(space.offered[u]):
            formats = {tensor.name: space.formats[f] for tensor in space.units[u].tensors}
            with applied(subject.model, planned_weights(subject.model, subject.levels, formats=formats)):
                row[f, 0] = sum(_distance(_run(step.block, x, step.given), y) for x, y in zip(step.inputs, step.outputs, strict=True))
    return rows / subject.tokens.n_tokens


def _distance(y: Torch, original: Torch) -> float:
    return float((y - original).square().sum(dtype=torch.float64))


def _of(subject: Subject, units: list[int]) -> Subject:
    """Return the subject restricted to some of the units."""
    space = subject.space
    some = replace(space, units=tuple(space.units[u] for u in units), size_bits=space.size_bits[units], offered=space.offered[units])
    return replace(subject, space=some)
