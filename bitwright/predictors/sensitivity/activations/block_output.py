"""Block-output error: what a format adds to the output of its decoder block, all else in the block and what the block is given as in the original.

    E‖F(x) − F(x; one unit in one format)‖² over the tokens of the text

The block is run alone on its recorded input. For an expert this is ε of MC-MoE (Huang et al., "Mixture Compressor", ICLR 2025), squared, as that
paper's exponent γ = 2 does, over all tokens at once instead of batch by batch, and behind the residual connection, which changes nothing. Divided by
the power of the output it can be compared between blocks, which the plain norms of MC-MoE cannot.

A unit outside the blocks has the layer-output error of its own: of the row that is looked up, or of the logits.

Memory: the hidden states of all tokens before one block and after it. Cost: two forwards over the tokens, a third where a unit lies outside the
blocks, and one forward of one block for each pair: for L blocks 1/L of what measuring every pair takes.
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
from bitwright.predictors.sensitivity.activations.input_moments import OutputErrors
from bitwright.predictors.sensitivity.activations.layer_output import layer_output_errors
from bitwright.predictors.sensitivity.block_hooks import Call, decoder_blocks, read, watched
from bitwright.predictors.sensitivity.caching import kept
from bitwright.predictors.sensitivity.subject import Subject


def block_output_errors(subject: Subject) -> OutputErrors:
    """E‖F(x) − F(x; changed)‖² of every unit and format, and E‖F(x)‖² of every unit."""
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
            found[within] = kept(subject, f"block output/{step.index}", partial(_of_block, subject, step, within))
            advance(int(space.offered[within].sum()))
    return OutputErrors(found[:, :-1], found[:, -1])


@dataclass(frozen=True, eq=False)
class _Step:
    """The block of that `index`, what it is given in each batch and what it gives, and all else that it is `given`, by the number of sequences."""

    index: int
    block: Module
    inputs: list[Torch]
    outputs: list[Torch]
    given: dict[int, dict[str, Any]]


def _steps(subject: Subject) -> Iterator[_Step]:
    """The blocks in order, each given what the one before it gave."""
    hidden: list[Torch] = []
    given: dict[int, dict[int, dict[str, Any]]] = {}  # what else a block is given depends on the shape of a batch alone

    def told(call: Call) -> None:
        given.setdefault(call.index, {})[len(call.x)] = call.given
        if call.index == 0:
            hidden.append(call.x)

    with watched(subject.model, told):
        read(subject, "Recording what the first block is given")
    for i, block in enumerate(decoder_blocks(subject.model)):
        outputs = [_run(block, x, given[i]) for x in hidden]
        yield _Step(i, block, hidden, outputs, given[i])
        hidden = outputs


@torch.inference_mode()
def _run(block: Module, x: Torch, given: dict[int, dict[str, Any]]) -> Torch:
    y: Torch = block(x, **given[len(x)])
    return y


def _of_block(subject: Subject, step: _Step, units: list[int]) -> NDArray[np.float64]:
    """Mean squared errors `(len(units), n_formats + 1, 2)` of units of one block, the power of its output last; none of them is looked up."""
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
    """The same of some of the units."""
    space = subject.space
    some = replace(space, units=tuple(space.units[u] for u in units), size_bits=space.size_bits[units], offered=space.offered[units])
    return replace(subject, space=some)
