"""Choice of the map of channels at a junction by the quadratic error of the matrices that read them, with the codec and formats that ship.

The error of a matrix W that becomes W + ΔW is tr(ΔW M ΔWᵀ), M the second moments of its inputs on the calibration text. The rows of what makes the
channels change too, each by one factor or its place, which a format of blocks along the rows hardly notices, so they do not count.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import ChannelMap, Codec, Floats, Junction, ReparametrizedSource
from bitwright.spaces import Format, Tensor

_N_ROWS = 64  # of the matrices of one format together, evenly spaced

CodecWith = Callable[[Mapping[str, Floats]], Codec]


@dataclass(frozen=True, eq=False)
class MovedMoments(Mapping[str, Floats]):
    """Second moments `(n_groups, n_columns, n_columns)` of the inputs of matrices of `source`, of those of the model as it was."""

    source: ReparametrizedSource
    originals: Mapping[str, Floats]

    def __getitem__(self, name: str) -> Floats:
        return self.source.moments(name, self.originals[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.originals)

    def __len__(self) -> int:
        return len(self.originals)


@dataclass(frozen=True, eq=False)
class Fitting:
    """Weights to quantize: tensors of `source` in `formats` (tensor → format) with the codec that `codec` makes of moments, their `importance` and
    second `moments`, all of the channels as `source` has them.
    """

    source: ReparametrizedSource
    formats: Mapping[str, Format]
    codec: CodecWith
    importance: Mapping[str, Floats]
    moments: Mapping[str, Floats]

    def channels(self, at: Junction) -> "ReadChannels | None":
        """Return the channels at a junction as its quantized readers read them; None where none of them is quantized."""
        tensors = {tensor.name: tensor for tensor in self.source.tensors}
        readers = [tensors[name] for name in at.readers if name in self.formats and self.formats[name].name != tensors[name].stored]
        if not readers or readers[0].name not in self.moments:
            return None
        forms = dict.fromkeys(self.formats[tensor.name] for tensor in readers)
        alike = ([tensor for tensor in readers if self.formats[tensor.name] == form] for form in forms)
        return ReadChannels(self, at, tuple(self._reader(tensors) for tensors in alike), self.moments[readers[0].name][0])

    def _reader(self, tensors: Sequence[Tensor]) -> "_Reader":
        """Return matrices of one format with the same inputs as one."""
        first, rows, squares = tensors[0], list[Floats](), list[Floats]()
        for tensor in tensors:
            weights = self.source.read(tensor)
            places = np.linspace(0, len(weights) - 1, min(-(-_N_ROWS // len(tensors)), len(weights))).astype(np.int64)
            rows.append(weights[places])
            squares.append((weights**2).mean(axis=0))
        importance = self.importance.get(first.name, np.empty((0, first.shape[-1]), dtype=np.float32))
        return _Reader(first.name, self.formats[first.name], np.concatenate(rows), importance, np.mean(squares, axis=0))


@dataclass(frozen=True, eq=False)
class _Reader:
    """Rows `(n_rows, n_columns)` of matrices that read the same channels in the same format, the importance and the mean square of their columns."""

    name: str
    form: Format
    rows: Floats
    importance: Floats
    squares: Floats


@dataclass(frozen=True, eq=False)
class ReadChannels:
    """Channels at a junction, the matrices that read them, and the second moments `(n_columns, n_columns)` of what these read."""

    fitting: Fitting
    at: Junction
    readers: tuple[_Reader, ...]
    products: Floats

    @property
    def energies(self) -> NDArray[np.float64]:
        """Mean square `(n_channels,)` of each channel, in any unit; those that heads share are means over them. None is 0."""
        energies = self._of_makers(self.products.diagonal())
        mean = energies.mean()
        return np.maximum(energies, 1e-6 * mean) if mean > 0 else np.ones_like(energies)

    @property
    def weight_squares(self) -> NDArray[np.float64]:
        """Mean square `(n_channels,)` of the weights that read each channel. None is 0."""
        squares = self._of_makers(np.mean([reader.squares for reader in self.readers], axis=0))
        mean = squares.mean()
        return np.maximum(squares, 1e-6 * mean) if mean > 0 else np.ones_like(squares)

    def best(self, candidates: Iterable[ChannelMap]) -> ChannelMap | None:
        """Return the map of least error; None where leaving the channels as they are has no more."""
        least, found = self.error(None), None
        for by in candidates:
            error = self.error(by)
            if error < least:
                least, found = error, by
        return found

    def error(self, by: ChannelMap | None) -> float:
        """Return the summed error of the matrices whose channels a map changes, of those that nothing changes where it is None."""
        wide = None if by is None else by.repeated(self.at.n_shared, self.at.width)
        moments = self.products if wide is None else wide.moments(self.products)
        return sum(self._error_of(reader, wide, moments) for reader in self.readers)

    def _of_makers(self, columns: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the means over the heads that share channels, `(n_channels,)` of `(n_columns,)`."""
        means: NDArray[np.float64] = columns.astype(np.float64).reshape(-1, self.at.n_shared, self.at.width).mean(axis=1)
        return means.reshape(-1)

    def _error_of(self, reader: _Reader, by: ChannelMap | None, moments: Floats) -> float:
        codec = self.fitting.codec({reader.name: moments[None]}).for_tensor(reader.name)
        rows, importance = (reader.rows, reader.importance) if by is None else (by.read(reader.rows), by.squares(reader.importance))
        decoded = codec.decode(codec.encode(rows, reader.form, importance), reader.form, rows.shape)
        change = (decoded if by is None else by.unread(decoded)) - reader.rows
        return float(np.einsum("rc,rc->", change @ self.products, change, dtype=np.float64))
