"""Writer of weights into a torch module, the only one: other weights as long as a `with` block lasts, one set after another.

A search measures hundreds of choices of which most differ in two units, so only tensors that differ from the set before are written, and expanded
weights are cached in memory up to a bound.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor as Torch

from bitwright.compress.in_place.dropping import DroppedWeights, NarrowedRouter, Replacements, Rerouting
from bitwright.compress.in_place.packed_weights import PackedWeights
from bitwright.compress.in_place.rounded_cache import CacheRounding, cache_rounding
from bitwright.compress.in_place.rounded_inputs import InputRounding, RoundsInputs
from bitwright.compress.models.model import Model
from bitwright.compress.models.residence import Changes, Weights
from bitwright.compress.models.source import Floats
from bitwright.spaces import CacheTypes

#: bound on the expanded weights that a search keeps in memory
EXPANDED_BYTES = 1 << 31
_CHUNK_BYTES = 1 << 22


@contextmanager
def swapping(model: Model, *, expanded_bytes: int = 0) -> Iterator["WeightSwapper"]:
    """Open a `WeightSwapper` that caches at most `expanded_bytes` of expanded weights; the original weights come back when the block ends.

    Memory beside the model: the parameters that were written, once more, and what is cached.
    """
    with ExitStack() as stack:
        swapper = WeightSwapper(model, stack, expanded_bytes=expanded_bytes)
        stack.callback(swapper.restore)
        yield swapper


class WeightSwapper(Changes):
    """Loader of weights into a module, opened by `swapping`.

    `originals` are the weights before anything was written, by name of the parameter. Of a model in memory those that were never written are not
    there; of one that is streamed all are, and are read again.
    """

    def __init__(self, model: Model, stack: ExitStack, *, expanded_bytes: int) -> None:
        self._saved: dict[str, Torch] = {}
        self._kept = model.residence.originals(dict(model.module.named_parameters()))
        self._model, self._stack, self._expanded_bytes = model, stack, min(expanded_bytes, model.residence.expanded_bytes)
        self._loaded: dict[str, Callable[[], Floats]] = {}
        self._expanded: OrderedDict[Callable[[], Floats], Torch] = OrderedDict()
        self._inputs = InputRounding(model)
        self._cache: CacheRounding | None = None
        self._rerouting: Rerouting | None = None

    @cached_property
    def _n_weights(self) -> dict[str, int]:
        return {tensor.name: tensor.n_weights for tensor in self._model.tensors}

    @cached_property
    def _tensors(self) -> dict[str, list[str]]:
        """Tensors of each parameter all of whose weights are in tensors of the source, each in one."""
        found, n_left = dict[str, list[str]](), {name: parameter.numel() for name, parameter in self._model.module.named_parameters()}
        for tensor, pieces in self._model.pieces.items():
            for piece in pieces:
                found.setdefault(piece.parameter, []).append(tensor)
                n_left[piece.parameter] -= piece.n_weights(self._model.module.get_parameter(piece.parameter))
        return {name: tensors for name, tensors in found.items() if not n_left[name]}

    @property
    def originals(self) -> Mapping[str, Torch]:
        """The weights before anything was written."""
        return self._saved if self._kept is None else self._kept

    def load(self, weights: Weights, cache: CacheTypes | None = None) -> None:
        """Give every tensor named in `weights` those weights and all others the original ones, and keep keys and values in the types of `cache`.

        A router cannot choose an expert whose weights are `DroppedWeights`, nor one that a `NarrowedRouter` drops, and inputs of layers with
        `RoundsInputs` are rounded. A tensor has its original weights when its new ones are asked for. Of a streamed model each block gets them when
        it is run.
        """
        self._model.residence.change(self, weights)
        self._keep(cache or CacheTypes())

    @torch.no_grad()
    def write(self, weights: Weights, parameters: Collection[str] | None) -> None:
        """Give the tensors in these `parameters`, all where it is None, their `weights`, or the original ones where there are none."""
        for name in [name for name, standing in self._loaded.items() if weights.get(name) != standing and self._is_in(name, parameters)]:
            del self._loaded[name]
            if self._kept is None or name not in weights:  # new weights may be made of the original ones, if those are in memory alone
                self._put_back(name)
        for name, given in weights.items():
            if name not in self._loaded and self._is_in(name, parameters):
                self._save(name)
                self._write(name, given)
                self._loaded[name] = given
        self._inputs.set_formats({name: given.form for name, given in weights.items() if isinstance(given, RoundsInputs)})
        dropping = (given.gone for given in weights.values() if isinstance(given, DroppedWeights | NarrowedRouter))
        self._drop({expert: replacement for gone in dropping for expert, replacement in gone.items()})

    def replaced(self, weights: Weights, parameters: Collection[str]) -> set[str]:
        """Return those of `parameters` whose tensors all have weights of their own format in `weights`."""
        return {name for name in parameters if name in self._tensors and None not in [_packed(weights.get(tensor)) for tensor in self._tensors[name]]}

    def n_differing(self, first: Weights, second: Weights, parameters: Collection[str]) -> int:
        """Return how many weights of `parameters` are in tensors that the two give different weights."""
        tensors = {tensor for name in parameters for tensor in self._tensors.get(name, ()) if first.get(tensor) != second.get(tensor)}
        return sum(self._n_weights[tensor] for tensor in tensors)

    def forget(self, parameters: Collection[str]) -> None:
        """Note that these parameters were freed."""
        for name in [name for name in self._loaded if self._is_in(name, parameters)]:
            del self._loaded[name]

    def active(self) -> AbstractContextManager[object]:
        """Return the context in which a block is run: routers are watched there, if the model is streamed."""
        return self._rerouting if self._rerouting is not None and self._model.residence.is_streamed else nullcontext()

    @torch.no_grad()
    def restore(self) -> None:
        """Give the module its original weights, and its cache the plain types."""
        for name, original in self._saved.items():
            self._model.module.get_parameter(name).copy_(original)
        self._loaded = {name: given for name, given in self._loaded.items() if self._kept is not None}
        self._model.residence.change(self, {})
        self._inputs.set_formats({})
        self._drop({})
        self._keep(CacheTypes())

    def _is_in(self, tensor: str, parameters: Collection[str] | None) -> bool:
        return parameters is None or any(piece.parameter in parameters for piece in self._model.pieces[tensor])

    def _save(self, tensor: str) -> None:
        if self._kept is None:
            for name in {piece.parameter for piece in self._model.pieces[tensor]} - self._saved.keys():
                self._saved[name] = self._model.module.get_parameter(name).detach().clone()

    def _put_back(self, tensor: str) -> None:
        for piece in self._model.pieces[tensor]:
            piece.put(self._model.module.get_parameter(piece.parameter), piece.cut(self.originals[piece.parameter]))

    def _write(self, tensor: str, given: Callable[[], Floats]) -> None:
        """Write the weights of a tensor: whole, or of a streamed model a few rows at a time, since a second copy of them may not fit."""
        start, read, step = 0, *self._rows_of(given)
        for piece in self._model.pieces[tensor]:
            parameter = self._model.module.get_parameter(piece.parameter)
            for first in range(0, piece.n_rows, step):
                some = replace(piece, rows=piece.rows[first : first + step])
                some.from_engine(parameter, read(start + first, start + first + some.n_rows).to(parameter.device))
            start += piece.n_rows

    def _rows_of(self, given: Callable[[], Floats]) -> tuple[Callable[[int, int], Torch], int]:
        """Return the function from the first row and the row past the last to the weights between them, and how many rows to ask for at once."""
        packed = _packed(given)
        if self._kept is not None and packed is not None:
            return lambda start, stop: torch.from_numpy(packed.rows(start, stop)), max(1, _CHUNK_BYTES // (4 * packed.tensor.shape[-1]))
        matrix = self._matrix(given)
        return lambda start, stop: matrix[start:stop], max(1, len(matrix))

    def _matrix(self, given: Callable[[], Floats]) -> Torch:
        """Return the weights `(n_rows, n_columns)`, cached within the bound; the longest unused make room for the newest."""
        if given in self._expanded:
            self._expanded.move_to_end(given)
            return self._expanded[given]
        matrix = torch.from_numpy(given())
        if 4 * matrix.numel() <= self._expanded_bytes:
            self._expanded[given] = matrix
        while sum(4 * rows.numel() for rows in self._expanded.values()) > self._expanded_bytes:
            self._expanded.popitem(last=False)
        return matrix

    def _drop(self, gone: Replacements) -> None:
        """Reroute the tokens of dropped experts; routers are watched from the first of them on."""
        if gone and self._rerouting is None:
            self._rerouting = Rerouting(self._model)
            if not self._model.residence.is_streamed:
                self._stack.enter_context(self._rerouting)
        if self._rerouting is not None:
            self._rerouting.without(gone)

    def _keep(self, types: CacheTypes) -> None:
        """Round keys and values as `types` do; the cache is watched from the first that are not plain on."""
        if not types.is_default and self._cache is None:
            self._cache = self._stack.enter_context(cache_rounding(self._model))
        if self._cache is not None:
            self._cache.set_types(types)


def _packed(given: Callable[[], Floats] | None) -> PackedWeights | None:
    """Return weights that are expanded from packed ones alone; None for others."""
    weights = given.weights if isinstance(given, RoundsInputs) else given
    return weights if isinstance(weights, PackedWeights) else None
