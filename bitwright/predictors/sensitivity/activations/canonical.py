"""Canonical correlation between the input and the output of a decoder block: the lower, the more important the block.

With Cxx, Cyy, Cxy the covariances of the hidden states x in and y out over all tokens, the canonical correlations are the singular values of
Cxx^(−½) Cxy Cyy^(−½) (Hotelling, 1936), and the score is minus their mean.

An interpretation of CMPQ of CPTQuant (Nanda et al., 2412.03599), of which only the abstract was available ("canonical correlation analysis of
different layers"): comparing a block's own input and output, the mean over all correlations, and the sign are choices made here. Covariances are
normalised by each channel's standard deviation, with 10⁻⁶ added to the diagonal; with fewer tokens than twice the width every correlation is 1.

Cost: one forward pass over the tokens, more where the blocks' covariances take more than 2 GiB together.
"""

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray

from bitwright.objectives import decoder_blocks
from bitwright.predictors.sensitivity.activations.covariance import Covariance, correlation, size_bytes
from bitwright.predictors.sensitivity.block_hooks import Call, hook_blocks, portions, run_subject
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.ranked_scores import layer_scores
from bitwright.predictors.sensitivity.subject import Subject

_RIDGE = 1e-6


def canonical_scores(subject: Subject) -> NDArray[np.float64]:
    """Return minus the mean canonical correlation of each unit's block `(n_units,)`, −1 to 0."""
    return layer_scores(subject.space, -cached(subject, "canonical correlations", lambda: _of_blocks(subject)))


def mean_canonical_correlation(joint: NDArray[np.float64]) -> float:
    """Return the mean canonical correlation of x and y with the joint covariance `joint` `(2 width, 2 width)`, x first."""
    width = len(joint) // 2
    scaled = correlation(joint, np.sqrt(np.diag(joint).clip(min=0))) + _RIDGE * np.eye(2 * width)
    of_x, of_y = np.linalg.cholesky(scaled[:width, :width]), np.linalg.cholesky(scaled[width:, width:])
    left = scipy.linalg.solve_triangular(of_x, scaled[:width, width:], lower=True)
    whitened = scipy.linalg.solve_triangular(of_y, left.T, lower=True)
    return float(np.linalg.svd(whitened, compute_uv=False).clip(0, 1).mean())


def _of_blocks(subject: Subject) -> NDArray[np.float64]:
    """Return the mean canonical correlation of each block `(n_blocks,)`."""
    width = subject.model.module.config.get_text_config().hidden_size
    found = np.zeros(len(decoder_blocks(subject.model)))
    for portion in portions([size_bytes(2 * width)] * len(found)):
        joint = {i: Covariance(2 * width, subject.model.device) for i in portion}

        def record(call: Call, joint: dict[int, Covariance] = joint) -> None:
            if call.index in joint:
                joint[call.index].add(torch.cat([call.x, call.y], dim=-1))

        with hook_blocks(subject.model, record):
            run_subject(subject, "Correlating inputs and outputs of blocks")
        found[portion] = [mean_canonical_correlation(joint[i].matrix()) for i in portion]
    return found
