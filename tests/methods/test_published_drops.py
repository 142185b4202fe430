"""Drop configurations of EvoPress: their averages, its counterexample to sums of prices, and bad files."""

from fractions import Fraction
from pathlib import Path

import pytest

from bitwright.errors import TextError, UserError
from bitwright.methods import asked_structure, structure_method
from bitwright.methods.published_drops import EVOPRESS_DROPS, drops_name, parsed_drops
from bitwright.spaces import Structure
from tests.sentences import sentence

_WHOLE = Structure((8,) * 32, (14336,) * 32)


def lines(text: str) -> list[str]:
    """Return the lines of a configuration that is written as `7 none, 1 mlp, …`."""
    return [word for n, word in (run.split() for run in text.split(",")) for _ in range(int(n))]


# drop_configs/Meta-Llama-3-8B/not_monotone_experiment of IST-DASLab/EvoPress (Apache-2.0): perplexity is better without more
_BEST = lines("7 none,1 mlp,4 attn+mlp,1 attn,6 none,4 attn+mlp,1 attn,1 none,1 mlp,1 attn+mlp,1 none,1 attn+mlp,3 none")
_WORST = lines("8 none,2 attn,1 none,1 attn+mlp,1 attn,6 none,4 attn+mlp,2 none,2 mlp,1 none,1 mlp,3 none")
# drop_configs/Llama-2-7b-hf
_SIXTEENTH = lines("11 none,1 mlp,1 attn+mlp,11 none,1 attn,7 none")


def gone(words: list[str]) -> set[tuple[int, str]]:
    return {(i, part) for i, word in enumerate(words) for part in word.split("+") if word != "none"}


def kept(words: list[str]) -> Structure:
    method = structure_method(drops_name(parsed_drops(words)))
    assert method is not None
    (found,) = method.proposed(None, _WHOLE, lambda n: [n])  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(("words", "share"), [(_SIXTEENTH, "0.0625"), (_BEST, "0.375"), (_WORST, "0.25")])
def test_averages_are_exact(words: list[str], share: str) -> None:
    assert len(words) == 32
    assert parsed_drops(words).share == Fraction(share) == Fraction(len(gone(words)), 64)


def test_what_the_worse_takes_away_is_a_part_of_what_the_better_does() -> None:
    """No sum of prices of parts, none of them negative, can say so: the counterexample must be measured as it is."""
    assert gone(_WORST) < gone(_BEST)
    best, worst = kept(_BEST), kept(_WORST)
    assert all(a <= b for a, b in zip((*best.head_groups, *best.channels), (*worst.head_groups, *worst.channels), strict=True))
    assert best != worst


def test_a_feed_forward_part_without_its_attention_keeps_channels() -> None:
    found = kept(_SIXTEENTH)
    assert (found.head_groups[11], found.channels[11]) == (8, 256)
    assert (found.head_groups[12], found.channels[12]) == (0, 0)
    assert (found.head_groups[24], found.channels[24]) == (0, 14336)
    assert found.trapped == ()
    narrow = parsed_drops(["none", "mlp"]).structure(Structure((2, 2), (172, 172)))
    assert narrow.channels == (172, 32)


def test_a_file_is_asked_for_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "Layer_Drop_Config.txt"
    path.write_text("\n".join(_BEST) + "\n", encoding="utf-8")
    kinds, name = asked_structure(f"evopress-drops:{path}")
    assert kinds == ("attention", "channels", "layers")
    path.unlink()
    method = structure_method(name)
    assert method is not None
    assert method.kinds == kinds
    assert next(method.proposed(None, _WHOLE, lambda n: [n])) == kept(_BEST)  # type: ignore[arg-type]


# --- refused


@pytest.mark.parametrize(("words", "fault"), [(["none", "ffn"], "ffn"), ([], "nothing")])
def test_another_grammar_is_refused(words: list[str], fault: str) -> None:
    with pytest.raises(UserError) as refused:
        parsed_drops(words)
    sentence(refused.value, fault, "attn+mlp")


@pytest.mark.parametrize(("words", "fault"), [(["none"] * 31, "31"), (["attn", *["none"] * 31], "must keep heads")])
def test_another_model_is_refused(words: list[str], fault: str) -> None:
    with pytest.raises(UserError) as refused:
        parsed_drops(words).structure(_WHOLE)
    sentence(refused.value, fault)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError) as refused:
        asked_structure(f"{EVOPRESS_DROPS}{tmp_path / 'none.txt'}")
    sentence(refused.value, "none.txt")
