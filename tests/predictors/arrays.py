"""Units of weights that a test writes down, without a model."""

from pathlib import Path

import numpy as np

from bitwright.compress import Bytes, Floats, PackedTensors, Source, integer_codec
from bitwright.engines.no_engine import INTEGERS
from bitwright.spaces import Space, Tensor, Unit


class Arrays(Source):
    """Matrices by name, each `(n_rows, n_columns)`."""

    name, architecture, fingerprint, metadata = "arrays", "none", "", ()

    def __init__(self, matrices: dict[str, np.ndarray]) -> None:
        self._matrices = {name: np.asarray(matrix, dtype=np.float32) for name, matrix in matrices.items()}
        self.tensors = tuple(Tensor(name, matrix.shape, "F32") for name, matrix in self._matrices.items())

    def read(self, tensor: Tensor) -> Floats:
        """Weights of a tensor `(n_rows, n_columns)`."""
        return self._matrices[tensor.name]

    def stored(self, tensor: Tensor) -> Bytes:
        """Bytes of a tensor as float32."""
        return self.read(tensor).view(np.uint8).reshape(-1)


def written(
    units: list[list[np.ndarray]], importance: dict[str, np.ndarray] | None = None, *, layers: list[int] | None = None
) -> tuple[Space, PackedTensors]:
    """A space of INT4_ROW with one unit for each list of matrices, whose tensors are named `0.0`, `0.1`, `1.0` and so on; block `u` holds unit `u`
    where `layers` does not say otherwise.
    """
    source = Arrays({f"{u}.{i}": matrix for u, matrices in enumerate(units) for i, matrix in enumerate(matrices)})
    where = layers or list(range(len(units)))
    made = tuple(Unit(str(u), where[u], "", tuple(t for t in source.tensors if t.name.split(".")[0] == str(u))) for u in range(len(units)))
    space = INTEGERS.space(made, menu=("INT4_ROW",), fixed_bytes=0, n_weights=sum(unit.n_weights for unit in made))
    return space, PackedTensors(Path("unused"), source, integer_codec(), importance or {})
