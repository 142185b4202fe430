"""Published methods that take channels of feed-forward parts away by a score of their own, in the order of which the channels are put.

A method says how much a channel is worth and by which rule blocks share what goes; how much that is, is measured, as with all methods of structure.
"""

from collections.abc import Iterator

import numpy as np

from bitwright.methods.structure_method import KEPT_SHARES, MEASURED, SeenModel, StructureMethod, Widths, nearest_width
from bitwright.predictors import channel_energies, kronecker_losses, mean_activations, relative_contributions
from bitwright.spaces import Structure


def _alike(_: SeenModel, whole: Structure, widths: Widths) -> Iterator[Structure]:
    """Yield structures that keep the same share of the channels of every block."""
    yield from dict.fromkeys(
        Structure(whole.head_groups, tuple(nearest_width(widths, n, share * n) for n in whole.channels)) for share in KEPT_SHARES
    )


def _above_a_threshold(seen: SeenModel, whole: Structure, widths: Widths) -> Iterator[Structure]:
    """Yield structures that keep the channels above a threshold that is the same in all blocks, by which a share of all channels goes."""
    rising = np.sort(np.concatenate(seen.channel_scores))
    thresholds = (rising[round((1 - share) * len(rising)) - 1] for share in KEPT_SHARES)
    above = ([int((scores > threshold).sum()) for scores in seen.channel_scores] for threshold in thresholds)
    yield from dict.fromkeys(
        Structure(whole.head_groups, tuple(nearest_width(widths, n, kept) for n, kept in zip(whole.channels, numbers, strict=True)))
        for numbers in above
    )


_WIDTHS = f"{MEASURED}, 5 to 50 % of the channels, in blocks of weights and at most half of a part; what is left is refitted in closed form"
BY_CHANNELS: tuple[StructureMethod, ...] = (
    StructureMethod(
        "camera",
        "CAMERA (Xu et al., AAAI 2026, arXiv 2508.02322), channel by channel: of every layer the same share of the channels goes, those with the "
        "least energy ‖w_c‖² ((1 − α) ‖a_c‖₂² + α ‖a_c‖_∞²), α = 0.9 as in its script",
        f"{_WIDTHS}; its micro-experts are the channels of mixtures, which camera-p and camera-q choose for; here they are those of a dense part, "
        "whose router weight is 1, and they are taken out, not zeroed",
        ("channels",),
        _alike,
        lambda model, tokens, *, seed, progress: channel_energies(model, tokens, progress=progress),  # noqa: ARG005
    ),
    StructureMethod(
        "mini-gpts",
        "Mini-GPTs (Valicenti et al., arXiv 2312.12682): neurons go whose mean absolute activation on the text of a domain is below a threshold, the "
        "same in all layers",
        f"{_WIDTHS} instead of fine-tuned, so that thresholds are quantiles instead of 10⁻³ to 10⁻¹; neurons are the channels of feed-forward parts, "
        "by what their down projection is given; those of attention and rare tokens stay; the calibration text is the domain's",
        ("channels",),
        _above_a_threshold,
        mean_activations,
    ),
    StructureMethod(
        "small-contributions",
        "Small Contributions, Small Networks (Hussien et al., arXiv 2410.16151): what a weight and its activation give of all that enters an output, "
        "|w_ij a_j| / Σ_k |w_ik a_k|, averaged over the text; what gives little goes",
        f"{_WIDTHS}; a channel goes with all of its weights, by the sum of their contributions and a quantile of those of all blocks, where single "
        "weights go; no training with its regularizer",
        ("channels",),
        _above_a_threshold,
        relative_contributions,
    ),
    StructureMethod(
        "kfac",
        "Neuron-based Pruning with Kronecker Factored Curvature (Ebrahimi & Klabjan, arXiv 2111.08577): neurons of all layers in one order, by the "
        "second-order loss of taking one away, ½ A_jj w_jᵀ G w_j with the factors of K-FAC",
        f"{_WIDTHS}; they prune while they train and are led by the spectral radius of the Hessian to a flat solution; here a trained model loses "
        "what costs least, by the column of the down projection and labels drawn from its own predictions",
        ("channels",),
        _above_a_threshold,
        kronecker_losses,
    ),
)
