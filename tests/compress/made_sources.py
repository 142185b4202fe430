"""Sources made up in a test: tensors of any shapes and formats, and any metadata."""

from collections.abc import Iterable

import numpy as np
from gguf import GGUFValueType
from hypothesis import strategies as st

from bitwright.compress import Bytes, Floats, KeyValue, Source, fingerprint, matrix_shape
from bitwright.compress.models.gguf.libggml import dequantize
from bitwright.engines import LLAMA_CPP
from bitwright.spaces import Tensor

ARCHITECTURE = KeyValue("general.architecture", "llama", GGUFValueType.STRING, GGUFValueType.STRING)


class MadeSource(Source):
    """Bytes that a generator made, of the size that the format asks for."""

    def __init__(self, tensors: Iterable[Tensor], metadata: Iterable[KeyValue] = (), seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.name, self.architecture = "made", "llama"
        self.metadata = (ARCHITECTURE, *metadata)
        self.tensors = tuple(tensors)
        self._data = {tensor.name: random_bytes(tensor.shape, tensor.stored, rng) for tensor in self.tensors}
        self.fingerprint = fingerprint(self.tensors, self.stored)

    def read(self, tensor: Tensor) -> Floats:
        """Dequantize the bytes to float32 `(n_rows, n_columns)`."""
        return dequantize(self.stored(tensor), tensor.stored, matrix_shape(tensor))

    def stored(self, tensor: Tensor) -> Bytes:
        """Return the bytes `(n_bytes,)`."""
        return self._data[tensor.name]


def random_bytes(shape: tuple[int, ...], form: str, rng: np.random.Generator) -> Bytes:
    """Bytes of a tensor: normal weights where the format is a float, anything at all elsewhere."""
    if form == "F32":
        return rng.normal(size=shape).astype(np.float32).reshape(-1).view(np.uint8)
    return rng.integers(0, 256, LLAMA_CPP.format(form).size_bytes(shape), dtype=np.uint8)


def shapes() -> st.SearchStrategy[tuple[int, ...]]:
    """Draw shapes of one to three dimensions, rows of odd and of blockable lengths last."""
    rows = st.integers(1, 40) | st.sampled_from([32, 64, 96, 256, 512])
    return st.builds(lambda leading, row: (*leading, row), st.lists(st.integers(1, 4), max_size=2), rows)


def fitting(shape: tuple[int, ...]) -> list[str]:
    """The names of all formats that can hold rows of this length."""
    return [form.name for form in LLAMA_CPP.formats if form.fits(shape)]


_LIMITS = {GGUFValueType[f"{sign}INT{bits}"]: (bits, sign) for bits in (8, 16, 32, 64) for sign in ("", "U")}
_SCALARS: dict[GGUFValueType, st.SearchStrategy] = {
    **{kind: st.integers(0, 2**bits - 1) if sign else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for kind, (bits, sign) in _LIMITS.items()},
    GGUFValueType.FLOAT32: st.floats(width=32, allow_nan=False),
    GGUFValueType.FLOAT64: st.floats(allow_nan=False),
    GGUFValueType.BOOL: st.booleans(),
    GGUFValueType.STRING: st.text(max_size=12),
}


@st.composite
def key_values(draw: st.DrawFn) -> tuple[KeyValue, ...]:
    """Metadata of every type that GGUF knows, arrays included."""
    keys = draw(st.lists(st.from_regex(r"[a-z]{1,8}\.[a-z_]{1,8}", fullmatch=True), unique=True, max_size=5))
    found = []
    for key in keys:
        item = draw(st.sampled_from(sorted(_SCALARS)))
        if draw(st.booleans()):
            found.append(KeyValue(key, draw(_SCALARS[item]), item, item))
        else:
            found.append(KeyValue(key, draw(st.lists(_SCALARS[item], min_size=1, max_size=5)), GGUFValueType.ARRAY, item))
    return tuple(found)


@st.composite
def tensors(draw: st.DrawFn, *, n_at_most: int = 6) -> tuple[Tensor, ...]:
    """Tensors with names as of a model, in any format that fits."""
    found = []
    for t in range(draw(st.integers(1, n_at_most))):
        shape = draw(shapes())
        kind = draw(st.sampled_from(["attn_q.weight", "attn_norm.weight", "ffn_down_exps.weight", "attn_q.bias"]))
        found.append(Tensor(f"blk.{t}.{kind}", shape, draw(st.sampled_from(fitting(shape)))))
    return tuple(found)
