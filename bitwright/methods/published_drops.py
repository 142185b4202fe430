"""Drop configurations of EvoPress (Sieberling et al., ICML 2025, arXiv 2410.14649): the attentions and feed-forward parts that go, block by block.

Grammar: `src/model_utils.py` of its repository, `drop_layers_from_config`: a line for each block, one of `none`, `attn`, `mlp` and `attn+mlp`. The
authors publish 30 of them for Llama 2, Llama 3, Llama 3.1 and Mistral. Two of these are its counterexample: what the worse one takes away is a part
of what the better one does (`not_monotone_experiment`), so that no sum of prices of parts orders them, and only measuring does.

What differs here: formats are chosen with it; what is left is refitted; and a feed-forward part that goes where the attention stays keeps the step of
channels that give most, since llama.cpp skips the attention of a block without any.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from bitwright.errors import TextError, UserError, shown
from bitwright.spaces import Structure, StructureKind, channel_step, small_text

DROPS_SOURCE = "EvoPress (Sieberling et al., arXiv 2410.14649): the attentions and feed-forward parts go that a drop configuration names"
DROPS_DIFFER = "formats are chosen with what goes, what is left is refitted; a feed-forward part whose attention stays keeps 32 or 256 channels"
#: start of `--structure`, before the path of a file
EVOPRESS_DROPS = "evopress-drops:"
DROP_KINDS: tuple[StructureKind, ...] = ("attention", "channels", "layers")
_ATTENTION, _FEED_FORWARD, _BOTH, _NONE = "attn", "mlp", "attn+mlp", "none"
#: words of the grammar: nothing, attention, the feed-forward part, and both go
DROP_WORDS = (_NONE, _ATTENTION, _FEED_FORWARD, _BOTH)


@dataclass(frozen=True)
class Drops:
    """Parts that go, `(n_blocks,)` words of the grammar."""

    words: tuple[str, ...]

    @property
    def share(self) -> Fraction:
        """Share of the attentions and feed-forward parts that go: the number by which the authors name a file."""
        n_gone = sum(2 if word == _BOTH else int(word != _NONE) for word in self.words)
        return Fraction(n_gone, 2 * len(self.words))

    def structure(self, whole: Structure) -> Structure:
        """Return the structure of a `whole` model that is kept.

        Raises:
            UserError: it has another number of blocks, or the first that is left would keep no heads.
        """
        if len(self.words) != whole.n_layers:
            raise UserError(
                f"A drop configuration must have a line for each block; this one has {len(self.words)} and the model {whole.n_layers} blocks: give "
                "one that was made for this model."
            )
        groups = tuple(0 if word in (_ATTENTION, _BOTH) else n for word, n in zip(self.words, whole.head_groups, strict=True))
        channels = tuple(_channels(word, n) for word, n in zip(self.words, whole.channels, strict=True))
        kept = Structure(groups, channels)
        kept.require_within(whole)
        return kept


def _channels(word: str, n_channels: int) -> int:
    return 0 if word == _BOTH else channel_step(n_channels) if word == _FEED_FORWARD else n_channels


def parsed_drops(lines: Iterable[str]) -> Drops:
    """Parse a drop configuration.

    Raises:
        UserError: a line is none of its words, or there are none.
    """
    words = tuple(line.strip() for line in lines if line.strip())
    wrong = next((word for word in words if word not in DROP_WORDS), "" if words else "nothing")
    if wrong:
        raise UserError(f"A drop configuration of EvoPress has one of {', '.join(DROP_WORDS)} in each line; it has '{shown(wrong)}': correct it.")
    return Drops(words)


def read_drops(path: Path) -> Drops:
    """Read a file of EvoPress, `layer_drop_config.txt`.

    Raises:
        TextError: it cannot be read.
        UserError: see `parsed_drops`.
    """
    try:
        text = small_text(path)
    except (OSError, ValueError) as error:
        raise TextError(f"A drop configuration must be a file of UTF-8 text that can be read; {path} is not: check the path.") from error
    return parsed_drops(text.splitlines())


def drops_name(drops: Drops) -> str:
    """Return the name of a method that takes these parts away, by which settings of a run hold them without the file."""
    return f"{EVOPRESS_DROPS}{','.join(drops.words)}"


def named_drops(name: str) -> Drops | None:
    """Return the parts that a method of the name of `drops_name` takes away, None for any other.

    Raises:
        UserError: see `parsed_drops`.
    """
    return parsed_drops(name.removeprefix(EVOPRESS_DROPS).split(",")) if name.startswith(EVOPRESS_DROPS) else None
