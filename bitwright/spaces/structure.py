"""Structure of a model: how much of each block is kept, by groups of heads of attention, channels of the feed-forward part, and routed experts.

A group of heads is a head of keys and values with the query heads that read it. What is kept of a part are its first groups or channels, so that a
model whose heads and channels are in the order of what they give keeps the best. A part of which nothing is kept is not stored, nor its norm; a block
of which neither part is kept is gone. The feed-forward part alone never goes: the architecture that stock llama.cpp loads such blocks with (`deci`)
skips the attention of a block without one, silently. Nor does the attention of the first block that is left, from which it takes the size of a head.
Experts are kept by their index, since what they give depends on the text.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from bitwright.errors import UserError

#: kinds of structure that may be chosen
StructureKind = Literal["attention", "channels", "experts", "heads", "layers"]
STRUCTURE_KINDS: tuple[StructureKind, ...] = ("attention", "channels", "experts", "heads", "layers")
#: kinds that leave the heads and channels of every block that is left as they are
WHOLE_BLOCK_KINDS: tuple[StructureKind, ...] = ("experts", "layers")
#: kinds whose parts are put in the order of what they give
ORDERED_KINDS: tuple[StructureKind, ...] = ("channels", "heads")
#: fewest channels that may be taken away
CHANNEL_STEP = 32
_WIDE_STEP = 256  # blocks of K-quants
_FEWEST_WIDE = 4  # of these in a part that is narrowed by as many


@dataclass(frozen=True)
class Structure:
    """Groups of heads and channels kept in each block, `(n_layers,)` each, and the indices of the routed experts kept there in ascending order, none
    of a block that is gone; where `experts` is empty, every expert there is.
    """

    head_groups: tuple[int, ...]
    channels: tuple[int, ...]
    experts: tuple[tuple[int, ...], ...] = ()

    @property
    def n_layers(self) -> int:
        """Number of blocks before any is taken away."""
        return len(self.channels)

    @property
    def gone(self) -> tuple[int, ...]:
        """Blocks of which nothing is kept."""
        return tuple(i for i, kept in enumerate(self._by_layer()) if kept == (0, 0))

    @property
    def unattended(self) -> tuple[int, ...]:
        """Blocks that keep their feed-forward part and no attention."""
        return tuple(i for i, (groups, channels) in enumerate(self._by_layer()) if channels and not groups)

    @property
    def trapped(self) -> tuple[int, ...]:
        """Blocks that keep attention and no feed-forward part, whose attention llama.cpp would skip silently."""
        return tuple(i for i, (groups, channels) in enumerate(self._by_layer()) if groups and not channels)

    def is_whole_parts(self, whole: "Structure") -> bool:
        """Return whether every part that is left is as wide as in the `whole` model."""
        pairs = zip((*self.head_groups, *self.channels), (*whole.head_groups, *whole.channels), strict=True)
        return all(kept in (0, full) for kept, full in pairs)

    def is_uniform(self, whole: "Structure") -> bool:
        """Return whether every block that is left is as wide as in the `whole` model."""
        return all(kept in ((0, 0), full) for kept, full in zip(self._by_layer(), whole._by_layer(), strict=True))

    def without(self, gone: Collection[int]) -> "Structure":
        """Return the structure without some blocks."""
        groups, channels = (tuple(0 if i in gone else n for i, n in enumerate(kept)) for kept in (self.head_groups, self.channels))
        return Structure(groups, channels, tuple(() if i in gone else kept for i, kept in enumerate(self.experts)))

    def dropped(self, whole: "Structure") -> dict[int, tuple[int, ...]]:
        """Return the experts of the `whole` model that are not kept of each block that is left, by block; none for a block that keeps all."""
        pairs = enumerate(zip(whole.experts, self.experts, strict=True)) if self.experts else ()
        found = {i: tuple(expert for expert in full if expert not in kept) for i, (full, kept) in pairs if i not in self.gone}
        return {i: experts for i, experts in found.items() if experts}

    def require_within(self, whole: "Structure") -> None:
        """Raise if this is not a structure that can be made of the `whole` model and loaded.

        Raises:
            UserError: it has other blocks, more of a part than the model, widths that cut a block of weights, or attention without feed-forward part.
        """
        self._require_experts(whole)
        if (len(self.head_groups), len(self.channels)) != (whole.n_layers, whole.n_layers):
            raise UserError(
                f"A structure must name what is kept of each of {whole.n_layers} blocks; this one has {len(self.head_groups)} numbers of groups of "
                f"heads and {len(self.channels)} of channels: make the plan again."
            )
        for i, (kept, full) in enumerate(zip(self._by_layer(), whole._by_layer(), strict=True)):
            if kept[0] not in range(full[0] + 1) or kept[1] not in range(full[1] + 1):
                raise UserError(
                    f"A block keeps no more than it has; block {i} has {full[0]} groups of heads and {full[1]} channels, and {kept[0]} and {kept[1]} "
                    "are to be kept: correct the structure of the plan."
                )
            if kept[1] % CHANNEL_STEP and kept[1] != full[1]:
                raise UserError(
                    f"Channels are kept in multiples of {CHANNEL_STEP}, in which weights are stored; {kept[1]} of block {i} are none: correct the "
                    "structure of the plan."
                )
        if self.trapped:
            raise UserError(
                f"A block that keeps its attention must keep channels of its feed-forward part, since llama.cpp skips both where there are none; "
                f"block {self.trapped[0]} keeps attention alone: keep {CHANNEL_STEP} channels there, or take the whole block away."
            )
        left = [groups for i, groups in enumerate(self.head_groups) if i not in self.gone]
        if not left:
            raise UserError("A model must keep a block; this structure takes all of them away: keep one.")
        if not left[0]:
            raise UserError(
                "The first block that is left must keep heads, since llama.cpp takes the size of a head from it; this structure takes its attention "
                "away: keep it, or take the whole block away."
            )

    def _require_experts(self, whole: "Structure") -> None:
        """Raise `UserError` if experts are kept that the `whole` model does not have, or of only some of its blocks."""
        if not self.experts:
            return
        full = whole.experts or ((),) * whole.n_layers
        wrong = next((i for i, (kept, of) in enumerate(zip(self.experts, full, strict=False)) if not _rising(kept) or not {*kept} <= {*of}), -1)
        if len(self.experts) != whole.n_layers or wrong >= 0:
            which = f"block {wrong} has {len(full[wrong])}" if wrong >= 0 else f"it names those of {len(self.experts)} of {whole.n_layers} blocks"
            raise UserError(
                f"A structure must name the experts that are kept of each block, in ascending order and among those of the model; {which}: make the "
                "plan again."
            )

    def _by_layer(self) -> Iterator[tuple[int, int]]:
        return zip(self.head_groups, self.channels, strict=True)


def _rising(experts: tuple[int, ...]) -> bool:
    return list(experts) == sorted(set(experts))


def channel_step(n_channels: int) -> int:
    """Return the number of channels by which a part of so many is narrowed: 256 where there are many, which K-quants need, else 32."""
    return _WIDE_STEP if n_channels >= _FEWEST_WIDE * _WIDE_STEP else CHANNEL_STEP


def structure_kinds(text: str) -> tuple[StructureKind, ...]:
    """Parse kinds of structure separated by commas, or `all`; empty text names none.

    Raises:
        UserError: a word is no kind.
    """
    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    wrong = next((word for word in words if word not in (*STRUCTURE_KINDS, "all")), "")
    if wrong:
        raise UserError(
            f"Structure is one of {', '.join(STRUCTURE_KINDS)}, or all, or the name of one method; '{wrong}' is none of them: choose among those, or "
            "see docs/structure.md for the methods."
        )
    return tuple(kind for kind in STRUCTURE_KINDS if kind in words or "all" in words)
