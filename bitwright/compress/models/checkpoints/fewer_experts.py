"""Configuration and slices of a checkpoint with fewer routed experts, the same number in every block, those that stay numbered anew."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bitwright.compress.models.tensor_layout import ParameterSlice
from bitwright.errors import ModelError

_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts")


def of_fewer_experts(config: Mapping[str, Any], before: int, after: int) -> dict[str, Any]:
    """Return a `config.json` of a model that has `after` routed experts in each block where it had `before`.

    Raises:
        ModelError: it has no number of experts under a known key.
    """
    counts = [key for key in _COUNTS if config.get(key) == before]
    if not counts:
        raise ModelError(
            f"Experts are taken from models whose config.json has their number as one of {', '.join(_COUNTS)}; this one has {before} under none of "
            "them: leave experts out of --structure."
        )
    return {**config, **dict.fromkeys(counts, after)}


def slices_of_experts(pieces: Sequence[ParameterSlice], kept: Sequence[int]) -> tuple[ParameterSlice, ...]:
    """Return the slices of the parameters of a model that has the experts `kept` alone: of a stack, one slice or more for each expert, or of a
    router, a slice with a row for each.
    """
    if all(piece.expert < 0 for piece in pieces):
        return tuple(replace(piece, rows=piece.rows[: len(kept)]) for piece in pieces)
    return tuple(replace(piece, expert=kept.index(piece.expert)) for piece in pieces if piece.expert in kept)
