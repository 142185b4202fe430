"""Sequential GPTQ: the moments of each block are measured behind the already quantized blocks (Frantar et al., ICLR 2023, section 4.1).

The decoder blocks are run one at a time on the calibration text, whose hidden states stay in memory: memory beyond the model is that of one block's
moments and of the hidden states. Tensors before the blocks (embeddings) are quantized first, those behind them (the output head) last.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import Floats, Model, matrix_shape
from bitwright.objectives import Tokens, collect_moments, decoder_blocks
from bitwright.pipeline.finishing.block_stream import SEQUENCES_AT_ONCE, Stream, input_stream
from bitwright.progress import Progress
from bitwright.spaces import Format, Tensor, discover

Moments = Mapping[str, NDArray[np.float32]]


class WeightsInFormats(Protocol):
    """Tensors in any format, as weights of the module."""

    def weights(self, tensor: Tensor, form: Format) -> Floats:
        """Return the weights `(n_rows, n_columns)` of a tensor in a format."""


#: moments of some tensors -> packed tensors quantized with them, all in one folder
LevelsWith = Callable[[Moments], WeightsInFormats]


@contextmanager
def sequential_gptq(model: Model, formats: Mapping[str, Format], tokens: Tokens, *, levels: LevelsWith, progress: Progress) -> Iterator[None]:
    """Quantize every tensor of `formats` block by block, and store its packed bytes in the folder of `levels`. Inside the `with` block, the model has
    the quantized weights.
    """
    tensors = [tensor for tensor in model.tensors if tensor.name in formats]
    layers = _by_layer(model, tensors)
    quantizer = _SequentialQuantizer(model, formats, tokens, levels)
    with _restored(model, tensors), progress.stage("Quantizing block by block (sequential GPTQ)", len(tensors)) as advance:
        outside = layers.pop(-1, [])
        head = quantizer.quantize_embeddings(outside)
        advance(len(outside) - len(head))
        stream = input_stream(model, tokens)
        for layer, block in enumerate(decoder_blocks(model)):
            quantizer.quantize_block(block, layer, stream, layers.get(layer, []))
            advance(len(layers.get(layer, [])))
        quantizer.quantize_head(head)
        advance(len(head))
        yield


class _SequentialQuantizer:
    """Quantizer of one model's tensors."""

    def __init__(self, model: Model, formats: Mapping[str, Format], tokens: Tokens, levels: LevelsWith) -> None:
        self._model, self._formats, self._tokens, self._levels = model, formats, tokens, levels

    def quantize_embeddings(self, outside: Sequence[Tensor]) -> list[Tensor]:
        """Quantize the embeddings among the tensors outside the blocks, and return the other tensors, which come behind the blocks."""
        moments = self._model_moments(outside)
        names = self._embeddings(outside)
        for tensor in outside:
            if tensor.name in names:
                self._quantize(tensor, moments)
        return [tensor for tensor in outside if tensor.name not in names]

    def quantize_head(self, tensors: Sequence[Tensor]) -> None:
        """Quantize the tensors behind the blocks, once the blocks are quantized."""
        moments = self._model_moments(tensors)
        for tensor in tensors:
            self._quantize(tensor, moments)

    def quantize_block(self, block: torch.nn.Module, layer: int, stream: Stream, tensors: Sequence[Tensor]) -> None:
        """Collect the moments of a block, quantize it, and advance the stream through the quantized block."""
        with collect_moments(self._model, [tensor.name for tensor in tensors]) as moments:
            for _ in stream.outputs(block, layer):
                pass
        for tensor in tensors:
            self._quantize(tensor, moments)
        stream.advance(block, layer)

    def _model_moments(self, tensors: Sequence[Tensor]) -> Moments:
        with torch.no_grad(), collect_moments(self._model, [tensor.name for tensor in tensors]) as moments:
            for ids in self._tokens.batches(SEQUENCES_AT_ONCE) if tensors else ():
                self._model.module(torch.from_numpy(ids).to(self._model.device), use_cache=False)
        return moments

    def _embeddings(self, tensors: Sequence[Tensor]) -> set[str]:
        embedding = self._model.module.get_input_embeddings().weight
        parameters = dict(self._model.module.named_parameters())
        return {tensor.name for tensor in tensors for piece in self._model.pieces[tensor.name] if parameters[piece.parameter] is embedding}

    def _quantize(self, tensor: Tensor, moments: Moments) -> None:
        levels, form = self._levels(moments), self._formats[tensor.name]
        rows = torch.from_numpy(levels.weights(tensor, form).reshape(matrix_shape(tensor)))
        start = 0
        for piece in self._model.pieces[tensor.name]:
            parameter = self._model.module.get_parameter(piece.parameter)
            with torch.no_grad():
                piece.from_engine(parameter, rows[start : start + piece.n_rows].to(parameter.device))
            start += piece.n_rows


def _by_layer(model: Model, tensors: Sequence[Tensor]) -> dict[int, list[Tensor]]:
    """Return the tensors of each block by its position among the blocks, -1 for tensors outside the blocks."""
    layer = {tensor.name: unit.layer for unit in discover(model.tensors) for tensor in unit.tensors}
    number = {block: i for i, block in enumerate(sorted({layer[name] for name in layer if layer[name] >= 0}))} | {-1: -1}
    found: dict[int, list[Tensor]] = {}
    for tensor in tensors:
        found.setdefault(number[layer[tensor.name]], []).append(tensor)
    return found


@contextmanager
def _restored(model: Model, tensors: Sequence[Tensor]) -> Iterator[None]:
    """Restore the module's original weights when the `with` block ends."""
    names = {piece.parameter for tensor in tensors for piece in model.pieces[tensor.name]}
    saved = {name: model.module.get_parameter(name).detach().clone() for name in names}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, original in saved.items():
                model.module.get_parameter(name).copy_(original)
