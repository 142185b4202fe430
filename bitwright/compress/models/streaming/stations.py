"""Parts of a module whose weights are in memory one part at a time: its decoder blocks, its token embedding and its output head.

The blocks are the largest list of modules in the decoder, so no name of a family is needed. What lies outside these parts, such as norms, stays in
memory.
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import nn
from transformers import PreTrainedModel

from bitwright.compress.models.module_state import weights_of
from bitwright.errors import ModelError

_LEAST_SHARE = 0.5  # of the weights outside embeddings and head


@dataclass(frozen=True, eq=False)
class Station:
    """Part number `index` in the order of a forward pass, at the path `name`, with the names of its `parameters`."""

    index: int
    name: str
    parameters: frozenset[str]
    is_block: bool


def stations_of(module: PreTrainedModel) -> tuple[Station, ...]:
    """Return the parts of a module, which may be on the meta device: the embedding, the blocks, and the head where it is a layer.

    Raises:
        ModelError: no list of modules holds at least half of the weights outside embeddings and head.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    paths = {inner: path for path, inner in module.named_modules()}
    embedding, head = module.get_input_embeddings(), module.get_output_embeddings()  # type: ignore[no-untyped-call]
    ends = [inner for inner in (embedding, head) if isinstance(inner, nn.Embedding | nn.Linear) and inner in paths]
    apart = [*ends, *(inner for inner in module.modules() if isinstance(inner, nn.Embedding))]
    blocks = _blocks(module, {id(parameter) for inner in apart for parameter in inner.parameters()})
    inner_modules = [*ends[:1], *blocks, *ends[1:]]
    return tuple(
        Station(i, paths[inner], frozenset(names[id(parameter)] for parameter in inner.parameters()), inner not in ends)
        for i, inner in enumerate(inner_modules)
    )


def station_bytes(module: PreTrainedModel, stations: tuple[Station, ...], *, width: int) -> tuple[int, int]:
    """Return the bytes of the largest two neighbours among the stations, and of all weights outside of them, at `width` bytes a weight."""
    sizes = {name: width * weight.numel() for name, weight in weights_of(module).items()}
    both = [first.parameters | second.parameters for first, second in pairwise(stations)]
    inside = frozenset[str]().union(*(station.parameters for station in stations))
    return max(sum(sizes[name] for name in names) for names in both), sum(size for name, size in sizes.items() if name not in inside)


def _blocks(module: PreTrainedModel, apart: set[int]) -> list[nn.Module]:
    """Return the decoder blocks, in order; parameters `apart` do not count."""
    decoder = module.get_decoder()  # type: ignore[no-untyped-call]
    lists = [inner for inner in decoder.modules() if isinstance(inner, nn.ModuleList) and len(inner) > 1]
    largest = max(lists, key=lambda inner: _n_weights(inner, apart), default=nn.ModuleList())
    if _n_weights(largest, apart) < _LEAST_SHARE * _n_weights(decoder, apart):
        raise ModelError(
            f"A model is streamed block by block, from a list of blocks in its module; {type(module).__name__} ({module.config.model_type}) has "
            "none: give more --search-memory, or a machine with more."
        )
    return list(largest)


def _n_weights(module: nn.Module, apart: set[int]) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if id(parameter) not in apart)
