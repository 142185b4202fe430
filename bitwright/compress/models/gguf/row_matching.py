"""Binding of the tensors of a GGUF file to the parameters of a torch module by their values.

A matrix of the file, or its transpose, is made of whole rows of the module's matrices or of their transposes: in any order (rotary embeddings), a
part of them (fused q, k and v), of several parameters, expert by expert. So each row is looked up by its contents in an index of the module's rows,
no name is needed, and what was found is compared weight by weight. Names are hints where equal rows leave a choice. Matrices that are left may be
multiples of the module's, see `scaled_rows.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor as Torch

from bitwright.compress.models.float_types import FLOAT_TYPES
from bitwright.compress.models.gguf.equal_rows import FoundRows, resolve
from bitwright.compress.models.gguf.row_index import Owner, ParameterRows, hashes_of_rows
from bitwright.compress.models.gguf.scaled_rows import scaled_pieces
from bitwright.compress.models.gguf.value_matching import Values
from bitwright.compress.models.source import Source
from bitwright.compress.models.tensor_layout import ParameterSlice, as_indices
from bitwright.spaces import Tensor

_AS_IT_IS = "F32"


@dataclass(frozen=True)
class Binding:
    """Tensors of a file by where their values are in the module.

    `pieces` has the matrices that were found, `rounded` the names of those that the file rounds to its own float type or multiplies by a constant,
    `copies` the tensors of the same rows as another tensor of the file, which has them in `pieces`, and `elsewhere` those whose values some parameter
    has in another arrangement. Nothing is known of the `unfound`.
    """

    pieces: dict[str, tuple[ParameterSlice, ...]]
    rounded: frozenset[str]
    copies: tuple[Tensor, ...]
    elsewhere: tuple[Tensor, ...]
    unfound: tuple[Tensor, ...]


def bind_by_rows(source: Source, parameters: Mapping[str, Torch], hints: Mapping[str, str]) -> Binding:
    """Find every tensor of `source` in `parameters`, which are float32.

    `hints` maps tensors to the parameters that a table of names gives them. Memory: a copy of the largest tensor, and some 30 bytes for each row.
    """
    matching = _Matching(source, parameters, hints)
    left = [tensor for tensor in source.tensors if len(tensor.shape) > 1]
    types = [_AS_IT_IS, *sorted({tensor.stored for tensor in left} & FLOAT_TYPES.keys() - {_AS_IT_IS})]
    for stored in types:
        rows = ParameterRows(parameters, transposed=False, stored=stored)
        left = [tensor for tensor in left if stored not in (_AS_IT_IS, tensor.stored) or not matching.as_rows(tensor, rows)]
    for stored in types if left else ():
        transposed, plain = (ParameterRows(matching.free, transposed=side, stored=stored) for side in (True, False))
        left = [tensor for tensor in left if stored not in (_AS_IT_IS, tensor.stored) or not matching.turned(tensor, transposed, plain)]
    left = [tensor for tensor in left if not matching.scaled(tensor)]
    values = Values(parameters)
    left += [tensor for tensor in source.tensors if len(tensor.shape) == 1]
    unfound = {tensor.name for tensor in left if not values.hold(tensor.name, source.read(tensor))}
    return Binding(
        matching.pieces,
        frozenset(matching.rounded),
        tuple(matching.copies),
        tuple(tensor for tensor in left if tensor.name not in unfound),
        tuple(tensor for tensor in source.tensors if tensor.name in unfound),
    )


class _Matching:
    """Matrices found so far, and the rows of parameters that they have."""

    def __init__(self, source: Source, parameters: Mapping[str, Torch], hints: Mapping[str, str]) -> None:
        self._source, self._parameters, self._hints = source, parameters, hints
        self._taken: dict[tuple[str, int, bool], NDArray[np.bool_]] = {}
        self.pieces: dict[str, tuple[ParameterSlice, ...]] = {}
        self.rounded: list[str] = []
        self.copies: list[Tensor] = []

    @property
    def free(self) -> dict[str, Torch]:
        """Parameters of which some rows were not found in the file yet."""
        full = {(name, expert) for (name, expert, _), rows in self._taken.items() if rows.all()}
        experts = {name: range(len(weight)) if weight.dim() == 3 else (-1,) for name, weight in self._parameters.items()}
        return {name: weight for name, weight in self._parameters.items() if any((name, expert) not in full for expert in experts[name])}

    def as_rows(self, tensor: Tensor, rows: ParameterRows) -> bool:
        """Bind a tensor whose rows are among `rows`; return whether they are."""
        weights = torch.from_numpy(self._source.read(tensor))
        found = self._found(tensor, weights, rows)
        return found is not None and self._bind(tensor, weights, [found], _row_pieces(found, tensor.shape[-2]), rows.stored)

    def turned(self, tensor: Tensor, transposed: ParameterRows, plain: ParameterRows) -> bool:
        """Bind a tensor whose rows are columns of the module's matrices, or whose columns are rows or columns of them; return whether they are."""
        if self.as_rows(tensor, transposed):
            return True
        weights = torch.from_numpy(self._source.read(tensor))
        for side in (plain, transposed):
            places = [self._found(tensor, matrix.T, side) for matrix in weights.reshape(-1, *tensor.shape[-2:])]
            found = [place for place in places if place is not None and (place.owner == place.owner[0]).all()]
            pieces = tuple(_column_piece(place, tensor.shape[-2]) for place in found)
            if len(pieces) == tensor.n_matrices and self._bind(tensor, weights, found, pieces, side.stored):
                return True
        return False

    def scaled(self, tensor: Tensor) -> bool:
        """Bind a tensor that is a multiple of a parameter, or a copy of another that is; return whether it is."""
        pieces = scaled_pieces(tensor, torch.from_numpy(self._source.read(tensor)), self._parameters, hint=self._hints.get(tensor.name, ""))
        places = [((piece.parameter, piece.expert, False), piece) for piece in pieces]
        if any(place in self._taken and self._taken[place][piece.order()].any() for place, piece in places):
            self.copies.append(tensor)
        elif pieces:
            for place, piece in places:
                n_rows = piece.matrix(self._parameters[piece.parameter]).shape[0]
                self._taken.setdefault(place, np.zeros(n_rows, dtype=np.bool_))[piece.order()] = True
            self.pieces[tensor.name] = pieces
            self.rounded.append(tensor.name)
        return bool(pieces)

    def _found(self, tensor: Tensor, lines: Torch, rows: ParameterRows) -> FoundRows | None:
        index, hint = rows.of_length(lines.shape[1]), self._hints.get(tensor.name, "")
        return resolve(index, hashes_of_rows(lines), tensor=tensor.name, hint=hint, is_taken=self._is_taken)

    def _bind(self, tensor: Tensor, weights: Torch, found: list[FoundRows], pieces: tuple[ParameterSlice, ...], stored: str) -> bool:
        """Bind a tensor to its pieces if they have its weights, and no other tensor has them; return whether they have."""
        start = 0
        for piece in pieces:
            rows = piece.to_engine(self._parameters[piece.parameter].detach()).to(FLOAT_TYPES[stored]).float()
            if not torch.equal(rows.cpu(), weights[start : start + piece.n_rows]):
                return False
            start += piece.n_rows
        chosen = [(place.index.owners[owner], place.row[place.owner == owner]) for place in found for owner in np.unique(place.owner)]
        if any(self._rows_of(owner)[rows].any() for owner, rows in chosen):
            self.copies.append(tensor)
            return True
        for owner, rows in chosen:
            self._rows_of(owner)[rows] = True
        self.pieces[tensor.name] = pieces
        if stored != _AS_IT_IS:
            self.rounded.append(tensor.name)
        return True

    def _rows_of(self, owner: Owner) -> NDArray[np.bool_]:
        """Return which rows of a matrix are taken, `(n_rows,)`."""
        return self._taken.setdefault((owner.parameter, owner.expert, owner.transposed), np.zeros(owner.shape[0], dtype=np.bool_))

    def _is_taken(self, owner: Owner, row: int) -> bool:
        return bool(self._rows_of(owner)[row])


def _row_pieces(found: FoundRows, n_rows: int) -> tuple[ParameterSlice, ...]:
    """Return the pieces of a tensor by rows; none reaches over the end of a matrix of `n_rows`."""
    n = len(found.owner)
    ends = {*range(n_rows, n + 1, n_rows), *(np.flatnonzero(np.diff(found.owner)) + 1).tolist(), n}
    pieces, start = [], 0
    for end in sorted(ends):
        owner = found.index.owners[found.owner[start]]
        pieces.append(ParameterSlice(owner.parameter, owner.expert, as_indices(found.row[start:end]), None, owner.transposed))
        start = end
    return tuple(pieces)


def _column_piece(found: FoundRows, n_rows: int) -> ParameterSlice:
    """Return the piece of a matrix of `n_rows` whose columns were found as rows."""
    owner, columns = found.index.owners[found.owner[0]], as_indices(found.row)
    whole = columns == range(owner.shape[0])
    return ParameterSlice(owner.parameter, owner.expert, range(n_rows), None if whole else columns, not owner.transposed)
