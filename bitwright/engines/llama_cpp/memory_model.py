"""Memory model of llama.cpp: the bytes of a run by purpose, from the dimensions of the model and the request.

Found from what llama.cpp b11549 reports in its log for made-up models of some sixty shapes, not from its sources. How each figure is known:

* weights, cache and outputs are exact to the byte on all of them;
* the compute buffer is the high-water mark of the engine's graph allocator; its formula is exact where the feed-forward network, or the heads
  together, are more than twice as wide as the embedding;
* the engine's own share (code, tokenizer, graph) was fitted to resident sizes of fresh processes.

`benchmarks/memory.py` holds all of it to the engine's log and to resident sizes. What is counted is one copy of the weights: where the engine maps
the file *and* repacks some formats for the processor, the file's pages come on top until the system takes them back; `--no-mmap` has none.
"""

from pathlib import Path

from bitwright.compress import Dimensions, Source
from bitwright.engines.llama_cpp.gguf_writer import header_bytes
from bitwright.engines.memory import KEYS, MemoryLine, MemoryModel, MemoryUse, Serving
from bitwright.errors import UserError
from bitwright.spaces import DEFAULT_CACHE_TYPE, CacheTypes, cache_format, require_whole_blocks, rotation

_CELLS = 256  # a sequence gets a multiple of this many cells
_BATCH = 512  # tokens computed at once (n_ubatch)
_MASK_BYTES = 2  # for each cell and token of a batch
_INPUT_BYTES, _WINDOW_INPUT_BYTES = 41, 21  # for each token of a batch: ids, positions, cells
_WORK_BYTES = 1.125  # for each activation that a matrix product rounds to 8 bits
_ENGINE_BYTES = 31 * 2**20
_LAYER_BYTES, _TOKEN_BYTES, _MERGE_BYTES = 85_000, 207, 242


class LlamaCppMemory(MemoryModel):
    """Memory model of llama.cpp, with the formulas of this module."""

    def use(self, shape: Dimensions, serving: Serving, *, weights_bytes: int) -> MemoryUse:
        """Count the bytes that a run takes in llama.cpp."""
        return memory_use(shape, serving, weights_bytes=weights_bytes)

    def header_bytes(self, source: Source, scratch: Path) -> int:
        """Count the bytes of the GGUF header."""
        return header_bytes(source, scratch)


def server_arguments(serving: Serving) -> str:
    """Return the arguments of llama-server for a serving, so that nothing is allocated that was not counted."""
    plain = serving.keys == serving.values == DEFAULT_CACHE_TYPE
    types = "" if plain else f" -ctk {serving.keys.lower()} -ctv {serving.values.lower()}"
    return f"-c {serving.context * serving.parallel} -np {serving.parallel}{types} --no-mmap --cache-ram 0 --ctx-checkpoints 0"


def memory_use(shape: Dimensions, serving: Serving, *, weights_bytes: int) -> MemoryUse:
    """Count the bytes that llama.cpp takes for a model whose tensors take `weights_bytes` in its file.

    Raises:
        UserError: the context is longer than the model's, or a head does not divide into the blocks of a cache type.
    """
    _require_possible(shape, serving)
    return MemoryUse(
        weights=MemoryLine("weights", weights_bytes, "exact", "every tensor once"),
        cache=_cache(shape, serving),
        outputs=MemoryLine("outputs", 4 * shape.n_vocabulary * serving.parallel, "exact", f"{serving.parallel} × {shape.n_vocabulary:,} logits × 4"),
        compute=_compute(shape, serving),
        engine=_engine(shape, serving),
    )


def _require_possible(shape: Dimensions, serving: Serving) -> None:
    if serving.context > shape.context_length:
        raise UserError(
            f"A context must be no longer than the model's; {serving.context:,} tokens are more than its {shape.context_length:,}: ask for fewer."
        )
    require_whole_blocks(CacheTypes(serving.keys, serving.values), key_head=shape.key_head, value_head=shape.value_head)


def _cache(shape: Dimensions, serving: Serving) -> tuple[MemoryLine, ...]:
    """Keys and values of the layers that see everything, and of those that see a window."""
    found = []
    for windowed, name in ((False, "cache"), (True, "cache of windows")):
        layers = [i for i, sliding in enumerate(shape.windowed) if sliding == windowed]
        cells = _window_cells(shape, serving) if windowed else _padded(serving.context)
        for what, widths, form in ((KEYS, shape.key_widths, serving.keys), ("values", shape.value_widths, serving.values)):
            size = sum(cache_format(form).size_bytes((serving.parallel * cells, widths[i])) for i in layers)
            if layers:
                detail = f"{len(layers)} layers × {widths[layers[0]]} × {cells:,} cells × {serving.parallel} in {form}"
                found.append(MemoryLine(f"{name}: {what}", size, "exact", detail))
    return tuple(found)


def _compute(shape: Dimensions, serving: Serving) -> MemoryLine:
    """Count the graph's buffer: at its peak five activations of the embedding's width beside three of the feed-forward network, or beside those of
    attention where they are larger; and the attention masks.
    """
    tokens = _batch(serving)
    routed, shared = 3 * shape.n_used * shape.feed_forward_width, 3 * shape.shared_width
    if shape.n_used > 1 and 2 * shape.feed_forward_width < shape.embedding_width:  # outputs of experts find no room where gate and up were
        routed, shared = routed + shape.n_used * shape.embedding_width, shared + shape.embedding_width
    activations = 5 * shape.embedding_width + max(routed, shared, _attention(shape, serving))
    masks = _padded(serving.context) + (_window_cells(shape, serving) if any(shape.windowed) else 0)
    inputs = _INPUT_BYTES + (_WINDOW_INPUT_BYTES if any(shape.windowed) else 0)
    size = tokens * (4 * activations + _MASK_BYTES * masks + inputs) + _rotations(shape, serving)
    return MemoryLine("compute buffer", size, "counted", f"{tokens} tokens × ({activations:,} activations × 4 + {masks:,} cells × {_MASK_BYTES})")


def _attention(shape: Dimensions, serving: Serving) -> int:
    """Activations of the widest attention: the queries before and after positions are put in, and of keys, values and such keys what finds no room.

    They take the place of the queries without positions, as many as it holds. One more finds room where the normalised input was, if it fits, or,
    where layers have windows, beside the queries that are scaled there, unless these are spread (`_rotations`).
    """
    cached = max(*shape.key_widths, *shape.value_widths)
    homeless = max(3 - shape.query_width // cached, 0)
    if cached <= shape.embedding_width or (any(shape.windowed) and not _rotations(shape, serving)):
        homeless = max(homeless - 1, 0)
    return 2 * shape.query_width + cached * homeless


def _rotations(shape: Dimensions, serving: Serving) -> int:
    """Count the matrices that rotate keys and values before a cache of blocks rounds them (see `rotation`); for the cache of windows once more."""
    sides = rotation(serving.keys, shape.key_head, keys=True), rotation(serving.values, shape.value_head, keys=False)
    return 4 * len(set(shape.windowed)) * sum(side**2 for side in sides)


def _engine(shape: Dimensions, serving: Serving) -> MemoryLine:
    tokens = _batch(serving)
    widths = (shape.n_used * shape.feed_forward_width, shape.shared_width, shape.query_width, shape.embedding_width)
    work = int(_WORK_BYTES * tokens * max(widths))
    words = _TOKEN_BYTES * shape.n_vocabulary + _MERGE_BYTES * shape.n_merges
    size = _ENGINE_BYTES + _LAYER_BYTES * shape.n_layers + words + work
    return MemoryLine("engine", size, "fitted", f"process, graph of {shape.n_layers} layers, {shape.n_vocabulary:,} tokens, work space")


def _batch(serving: Serving) -> int:
    """Tokens computed at once, a whole number for each sequence."""
    return -(-min(_BATCH, serving.context * serving.parallel) // serving.parallel) * serving.parallel


def _window_cells(shape: Dimensions, serving: Serving) -> int:
    """Cells of a sequence in a layer that sees a window: the window and one batch, but no more than the context."""
    return min(_padded(serving.context), _padded(shape.window + _BATCH))


def _padded(n_tokens: int) -> int:
    return -(-n_tokens // _CELLS) * _CELLS
