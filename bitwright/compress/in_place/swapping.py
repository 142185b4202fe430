"""Weight swapping: one choice after another in a torch module, writing only the units that differ from the choice before.

A search measures hundreds of choices, most of which differ in two units, so dequantized weights are cached in memory up to a bound.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor as Torch

from bitwright.compress.codecs.packed_cache import Levels
from bitwright.compress.in_place.dropping import Gone, Rerouting
from bitwright.compress.in_place.rounded_cache import CacheRounding, cache_rounding
from bitwright.compress.in_place.rounded_inputs import InputRounding
from bitwright.compress.models.model import Model
from bitwright.spaces import DROP, CacheTypes, Choice, Format, Space, Tensor, chosen_cache, weight_space, without_cache

EXPANDED_BYTES = 1 << 31
_ORIGINAL = -1


@contextmanager
def stitched(model: Model, packed_tensors: Levels, *, space: Space) -> Iterator["Stitcher"]:
    """Return a swapper of the module's weights within the block; the original weights are restored at its end.

    Every pair of the choices must have been quantized before, since the original weights are not in the module then. Memory besides the model: a copy
    of the parameters in the space, and at most 2 GiB of dequantized weights.
    """
    names = {piece.parameter for unit in weight_space(space).units for tensor in unit.tensors for piece in model.pieces[tensor.name]}
    saved = {name: model.module.get_parameter(name).detach().clone() for name in names}
    with ExitStack() as stack:
        may_drop = any(form == DROP and offered.any() for form, offered in zip(space.formats, space.offered.T, strict=True))
        heirs, reroute = (packed_tensors.heirs, stack.enter_context(Rerouting(model)).without) if may_drop else ({}, _reject_dropped)
        rounding = InputRounding(model), stack.enter_context(cache_rounding(model))
        swapper = Stitcher(model, packed_tensors, space, _Originals(saved, heirs, reroute, *rounding))
        stack.callback(swapper.restore)
        yield swapper


@dataclass(frozen=True, eq=False)
class _Originals:
    """Original weights `saved` before any change, the replacements of dropped experts, and the objects that change routers, inputs and KV cache."""

    saved: dict[str, Torch]
    heirs: Gone
    reroute: Callable[[Gone], None]
    inputs: InputRounding
    cache: CacheRounding


class Stitcher:
    """Writer of the weights and the cache types of choices into a module. Made by `stitched`, which saves the original weights first."""

    def __init__(self, model: Model, packed_tensors: Levels, space: Space, originals: _Originals) -> None:
        self._model, self._packed_tensors, self._space, self._originals = model, packed_tensors, space, originals
        self._loaded = np.full(len(space.units), _ORIGINAL)
        self._dequantized: OrderedDict[tuple[str, str], Torch] = OrderedDict()

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the original weights."""
        for name, original in self._originals.saved.items():
            self._model.module.get_parameter(name).copy_(original)
        self._loaded[:] = _ORIGINAL
        self._originals.reroute({})
        self._originals.inputs.set_formats({})
        self._originals.cache.set_types(CacheTypes())

    @torch.no_grad()
    def load_choice(self, choice: Choice) -> None:
        """Load the weights and the cache types of a choice `(n_units,)` into the module."""
        self._originals.cache.set_types(chosen_cache(self._space, choice))
        for u in np.flatnonzero(without_cache(self._space, self._loaded != choice)):
            form = self._space.formats[choice[u]]
            for tensor in self._space.units[u].tensors:
                self._write(tensor, form)
            self._loaded[u] = choice[u]
        formats = {t.name: self._space.formats[f] for unit, f in zip(self._space.units, choice, strict=True) for t in unit.tensors}
        self._originals.inputs.set_formats(formats)
        units = [unit for unit, f in zip(self._space.units, choice, strict=True) if self._space.formats[f] == DROP]
        self._originals.reroute({(unit.layer, unit.expert): self._originals.heirs.get((unit.layer, unit.expert), -1) for unit in units})

    def _write(self, tensor: Tensor, form: Format) -> None:
        is_stored = form.name == tensor.stored
        rows = None if is_stored else self._rows(tensor, form)
        start = 0
        for piece in self._model.pieces[tensor.name]:
            parameter = self._model.module.get_parameter(piece.parameter)
            original = self._originals.saved[piece.parameter]
            part = piece.to_engine(original) if rows is None else rows[start : start + piece.n_rows].to(parameter.device)
            piece.from_engine(parameter, part)
            start += piece.n_rows

    def _rows(self, tensor: Tensor, form: Format) -> Torch:
        """Return dequantized weights `(n_rows, n_columns)` in engine order, from a cache with LRU eviction."""
        key = tensor.name, form.name
        if key not in self._dequantized:
            self._dequantized[key] = torch.from_numpy(self._packed_tensors.weights(tensor, form))
            while sum(4 * rows.numel() for rows in self._dequantized.values()) > EXPANDED_BYTES and len(self._dequantized) > 1:
                self._dequantized.popitem(last=False)
        self._dequantized.move_to_end(key)
        return self._dequantized[key]


def _reject_dropped(gone: Gone) -> None:
    """Reject any dropped expert."""
    if gone:
        raise ValueError(f"experts {sorted(gone)} are dropped in a space without DROP")
