"""Published methods that take parts of a model away: which structures they would make, from one forward pass, from little to much.

A method proposes; the formats of what is left are chosen under the same limit, and the best by measured divergence competes with formats alone. So
each decides which parts go, and not how many, which is measured.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.errors import UserError
from bitwright.methods.evolved_drops import evolved_drops
from bitwright.methods.evolved_widths import evolved_widths
from bitwright.methods.published_channels import BY_CHANNELS
from bitwright.methods.published_drops import DROP_KINDS, DROPS_DIFFER, DROPS_SOURCE, EVOPRESS_DROPS, drops_name, named_drops, read_drops
from bitwright.methods.structure_method import KEPT_SHARES, MEASURED, SeenModel, StructureMethod, Widths, nearest_width
from bitwright.spaces import Structure, StructureKind, structure_kinds

_UNIQL_TEMPERATURE, _UNIQL_MOST = 0.1, 0.85
_LACO_SPANS, _LACO_THRESHOLDS, _LACO_INTERVAL = (2, 4), (0.98, 0.95, 0.9, 0.8, 0.65, 0.45), 2
_LLM_PRUNER_SHARES, _LLM_PRUNER_ENDS = (0.2, 0.3, 0.5), (4 / 32, 2 / 32)
_EXPERT_SHARES = (0.875, 0.75, 0.625, 0.5)


def _shortgpt(seen: SeenModel, whole: Structure, _: Widths) -> Iterator[Structure]:
    order = np.argsort(1 - seen.cosines.mean(axis=(1, 2)), kind="stable").tolist()
    for n in range(1, whole.n_layers // 2 + 1):
        yield whole.without(frozenset(order[:n]))


def _deeper_layers(seen: SeenModel, whole: Structure, _: Widths) -> Iterator[Structure]:
    for n in range(1, whole.n_layers // 2 + 1):
        first = int(np.argmin([seen.distances[i, i + n] for i in range(whole.n_layers - n + 1)]))
        yield whole.without(frozenset(range(first, first + n)))


def _laco(seen: SeenModel, whole: Structure, _: Widths) -> Iterator[Structure]:
    found = (_merged(seen, whole, span=span, threshold=threshold) for span in _LACO_SPANS for threshold in _LACO_THRESHOLDS)
    yield from (kept for kept in dict.fromkeys(found) if kept != whole)


def _merged(seen: SeenModel, whole: Structure, *, span: int, threshold: float) -> Structure:
    """Return what LaCo keeps with merges of `span` blocks whose last hidden states keep a cosine above the `threshold`: its algorithm 1."""
    kept, last = list(range(whole.n_layers)), whole.n_layers - span
    while last >= 0:
        fewer = kept[: last + 1] + kept[last + span :]
        if seen.kept(_of_blocks(whole, fewer)).cosine > threshold:
            kept = fewer
            last = min(last - _LACO_INTERVAL, len(kept) - span)
        else:
            last -= 1
    return _of_blocks(whole, kept)


def _trimllm(seen: SeenModel, whole: Structure, _: Widths) -> Iterator[Structure]:
    kept = list(range(whole.n_layers))
    for _step in range(whole.n_layers // 4):
        without = {layer: _of_blocks(whole, [other for other in kept if other != layer]) for layer in kept[1:]}
        kept.remove(min(without, key=lambda layer: seen.kept(without[layer]).nats_per_token))
        yield _of_blocks(whole, kept)


def _of_blocks(whole: Structure, kept: Sequence[int]) -> Structure:
    return whole.without(frozenset(range(whole.n_layers)) - frozenset(kept))


def uniql_shares(influence: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Return the share of channels that each block loses `(n_blocks,)` for a `mean` share, by block influence."""
    weights = np.exp(-(influence - influence.min()) / _UNIQL_TEMPERATURE)
    lost: NDArray[np.float64] = np.minimum(len(influence) * mean * weights / weights.sum(), _UNIQL_MOST)
    return lost


def _uniql(seen: SeenModel, whole: Structure, widths: Widths) -> Iterator[Structure]:
    influence = 1 - seen.cosines[:, :, -1].mean(axis=1)
    for kept in KEPT_SHARES:
        left = 1 - uniql_shares(influence, 1 - kept)
        nearest = (nearest_width(widths, n, share * n) for n, share in zip(whole.channels, left.tolist(), strict=True))
        yield Structure(whole.head_groups, tuple(nearest))


def _llm_pruner(_: SeenModel, whole: Structure, widths: Widths) -> Iterator[Structure]:
    n = whole.n_layers
    pruned = range(round(n * _LLM_PRUNER_ENDS[0]), n - round(n * _LLM_PRUNER_ENDS[1]))
    for share in _LLM_PRUNER_SHARES:
        left = 1 - share * n / len(pruned)
        groups = (max(round(left * full), 1) if i in pruned else full for i, full in enumerate(whole.head_groups))
        channels = (nearest_width(widths, full, left * full) if i in pruned else full for i, full in enumerate(whole.channels))
        yield Structure(tuple(groups), tuple(channels), whole.experts)


def _collaborative(seen: SeenModel, whole: Structure, _: Widths) -> Iterator[Structure]:
    n_experts = len(whole.experts[0])
    for n_kept in dict.fromkeys(round(n_experts * share) for share in _EXPERT_SHARES):
        if seen.n_experts_used <= n_kept < n_experts:
            best = (np.argsort(-scores[:n_experts], kind="stable")[:n_kept] for scores in seen.router_scores)
            yield Structure(whole.head_groups, whole.channels, tuple(tuple(sorted(kept.tolist())) for kept in best))


STRUCTURE_METHODS: tuple[StructureMethod, ...] = (
    StructureMethod(
        "shortgpt",
        "ShortGPT (Men et al., arXiv 2403.03853): blocks go in the order of their block influence, 1 − E cos(x, y), the least first",
        f"{MEASURED}, up to half of the blocks",
        ("layers",),
        _shortgpt,
    ),
    StructureMethod(
        "deeper-layers",
        "The Unreasonable Ineffectiveness of the Deeper Layers (Gromov et al., arXiv 2403.17887): the n blocks one behind another go between whose "
        "ends the hidden state of the last token turns least",
        f"{MEASURED}, up to half of the blocks; what is left is refitted in closed form instead of fine-tuned",
        ("layers",),
        _deeper_layers,
    ),
    StructureMethod(
        "laco",
        "LaCo (Yang et al., arXiv 2402.11187): from the last block on, a few blocks become one wherever the cosine of the last hidden states with "
        "the original's stays above a threshold (algorithm 1)",
        f"{MEASURED}, with spans of 2 and 4 blocks and thresholds from 0.98 to 0.45; of the blocks that become one the first stays, as in the "
        "released code, which overwrites the differences that the paper adds, and what is left is refitted in closed form",
        ("layers",),
        _laco,
    ),
    StructureMethod(
        "trimllm",
        "TrimLLM (Hu et al., arXiv 2412.11242): one block after another goes, each time the one that the calibration text misses least",
        f"{MEASURED}, up to a quarter of the blocks, the first never; what is left is refitted in closed form, not fine-tuned between the steps",
        ("layers",),
        _trimllm,
    ),
    StructureMethod(
        "evopress-drops",
        "EvoPress (Sieberling et al., arXiv 2410.14649): attentions and feed-forward parts, as many of each, by evolution: 64 random drops, then "
        "k(n − k)/1.5 generations of 32 offspring that switch one to three parts, selected on 2,048 and 32,768 tokens",
        f"{MEASURED}, for an eighth, a quarter and three eighths; parts go from the model in the formats of the best plan of formats alone, on as "
        "much of the calibration text as there is; a feed-forward part whose attention stays keeps 32 or 256 channels",
        DROP_KINDS,
        evolved_drops,
    ),
    StructureMethod(
        "search-llm",
        "Search for Efficient Large Language Models (Shen et al., arXiv 2409.17372): heads, channels and depth in a window of parameters, by "
        "evolution: 30 epochs of 500, of the 300 best 350 mutated and 100 crossed, by the cross-entropy without what goes",
        f"{MEASURED}, for 82 to 90, 74 to 82 (as released) and 66 to 74 % of the blocks' weights, on five calibration sequences; heads and channels "
        "in the order of what they give, blocks that go anywhere, and what is left refitted in closed form instead of by ADMM",
        ("channels", "heads", "layers"),
        evolved_widths,
    ),
    StructureMethod(
        "llm-pruner",
        "LLM-Pruner (Ma et al., arXiv 2305.11627), the pruning step of QPruner and AutoMixQ: 20, 30 or 50 % of the weights, all blocks but the first "
        "eighth and the last sixteenth lose the same share of heads and channels",
        f"{MEASURED}; heads and channels go in the order of what they give and not by their Taylor term, and what is left is refitted in closed form "
        "instead of fine-tuned",
        ("channels", "heads"),
        _llm_pruner,
    ),
    StructureMethod(
        "collaborative",
        "Collaborative Compression (CC-MoE): of each layer the quarter of the experts with the least accumulated router score goes",
        f"{MEASURED}, an eighth to half of the experts, the same number in every layer",
        ("experts",),
        _collaborative,
    ),
    StructureMethod(
        "uniql",
        "UniQL: of a mean share, each of n blocks loses n · softmax(−s/0.1) times as many channels, by its block influence s at the last token, and "
        "0.85 at most",
        f"{MEASURED}; channels alone, in blocks of weights and down to half, without ranks, masks that are trained or a device that chooses; what a "
        "block at its bound does not lose, no other does",
        ("channels",),
        _uniql,
    ),
    *BY_CHANNELS,
)


def asked_structure(text: str) -> tuple[tuple[StructureKind, ...], str]:
    """Parse the kinds of parts that may be taken away, or the name of a method that does it, or `evopress-drops:` and the path of a file of EvoPress;
    return the kinds and the method's name, empty for none.

    Raises:
        UserError: a word is neither, a method is not alone, or there is no such file.
    """
    asked = text.strip()
    if asked.lower().startswith(EVOPRESS_DROPS):
        return DROP_KINDS, drops_name(read_drops(Path(asked[len(EVOPRESS_DROPS) :])))
    words = [word.strip() for word in asked.lower().split(",")]
    among = next((known.name for known in STRUCTURE_METHODS if known.name in words and len(words) > 1), "")
    if among:
        raise UserError(f"A method that takes parts away is named alone, since it says which kinds go; {among} is not: name it or kinds.")
    method = structure_method(asked.lower())
    return (method.kinds, method.name) if method is not None else (structure_kinds(text), "")


def structure_method(name: str) -> StructureMethod | None:
    """Return the method of that name, or the one that takes away what the name says, None if there is none.

    Raises:
        UserError: see `named_drops`.
    """
    drops = named_drops(name)
    if drops is not None:
        return StructureMethod(name, DROPS_SOURCE, DROPS_DIFFER, DROP_KINDS, lambda _, whole, __: iter([drops.structure(whole)]))
    return next((method for method in STRUCTURE_METHODS if method.name == name), None)
