"""Mutual information between the output of a decoder block and the model's prediction: the higher, the more important the block.

After the layer score of QPruner (2412.11629), I(X; Y) with X a layer's output and Y the model's prediction; the estimator of that paper is not known.
X has hundreds of dimensions or more, so any estimate needs a model of its distribution. Here Y is the most likely token, one of the 31 most frequent
or "another". With Σ the covariance of X over all tokens and W its mean covariance within a class,

    I(X; Y) = ½ (log det Σ − log det W)

the difference of the differential entropies of normal distributions, −½ log of Wilks' lambda (1932). It is exact if X is normal within each class
with one covariance for all classes, and normal as a whole; for well separated classes it is too high, since a mixture has less entropy than the
normal distribution of its covariance. It is invariant under linear maps of X. With n tokens it is too high by about width · 31 / 2n nats, equally in
every block, so the order of blocks is unaffected. Covariances are normalised by each channel's standard deviation, with 10⁻⁶ added to the diagonal.

Cost: two forward passes over the tokens (the first for the predictions), more where the blocks' covariances take more than 2 GiB together.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.objectives import decoder_blocks
from bitwright.predictors.sensitivity.activations.covariance import Covariance, correlation, size_bytes
from bitwright.predictors.sensitivity.block_hooks import Call, forward, hook_blocks, portions, run_subject
from bitwright.predictors.sensitivity.caching import cached
from bitwright.predictors.sensitivity.ranked_scores import layer_scores
from bitwright.predictors.sensitivity.subject import Subject

N_CLASSES = 32
_RIDGE = 1e-6


def information_scores(subject: Subject) -> NDArray[np.float64]:
    """Return the mutual information of each unit's block output with the prediction, in nats `(n_units,)`, not below 0."""
    return layer_scores(subject.space, cached(subject, "mutual information", lambda: _of_blocks(subject)))


class LabelledOutputs:
    """Covariance of vectors, over all and within classes."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._whole = Covariance(width, device)
        self._sums = torch.zeros((N_CLASSES, width), dtype=torch.float64, device=device)
        self._counts = torch.zeros(N_CLASSES, dtype=torch.float64, device=device)

    def add(self, vectors: torch.Tensor, labels: torch.Tensor) -> None:
        """Add `vectors` `(n, width)` of classes `labels` `(n,)`, 0 to N_CLASSES − 1."""
        self._whole.add(vectors)
        self._sums.index_add_(0, labels, vectors.double())
        self._counts += torch.bincount(labels, minlength=N_CLASSES)

    def information(self) -> float:
        """Return I(vector; class) in nats."""
        counts, sums = self._counts.cpu().numpy(), self._sums.cpu().numpy()
        shares, means = counts / counts.sum(), sums / counts.clip(min=1)[:, None]
        apart = means - shares @ means  # (N_CLASSES, width)
        whole = self._whole.matrix()
        deviations, ridge = np.sqrt(np.diag(whole).clip(min=0)), _RIDGE * np.eye(len(whole))
        within = whole - (apart * shares[:, None]).T @ apart
        logs = [np.linalg.slogdet(correlation(matrix, deviations) + ridge)[1] for matrix in (whole, within)]
        return max(0.0, float(logs[0] - logs[1]) / 2)


def _of_blocks(subject: Subject) -> NDArray[np.float64]:
    """Return the mutual information of each block's output `(n_blocks,)` in nats."""
    classes, model = _predicted_classes(subject), subject.model
    width = model.module.config.get_text_config().hidden_size
    found = np.zeros(len(decoder_blocks(model)))
    for portion in portions([size_bytes(width)] * len(found)):
        outputs = {i: LabelledOutputs(width, model.device) for i in portion}
        seen = dict.fromkeys(portion, 0)

        def record(call: Call, outputs: dict[int, LabelledOutputs] = outputs, seen: dict[int, int] = seen) -> None:
            if call.index in outputs:
                start = seen[call.index]
                seen[call.index] = start + len(call.y)
                labels = torch.from_numpy(classes[start : seen[call.index]].reshape(-1)).to(call.y.device)
                outputs[call.index].add(call.y.flatten(0, 1), labels)

        with hook_blocks(model, record):
            run_subject(subject, "Relating block outputs to predictions")
        found[portion] = [outputs[i].information() for i in portion]
    return found


def _predicted_classes(subject: Subject) -> NDArray[np.int64]:
    """Return the class of the model's most likely next token at every position `(n_sequences, length)`, 0 for infrequent tokens."""
    predicted = np.concatenate([logits.argmax(dim=-1).cpu().numpy() for _, logits in forward(subject, "Reading the model's predictions")])
    tokens, counts = np.unique(predicted, return_counts=True)
    frequent = tokens[np.argsort(-counts, kind="stable")[: N_CLASSES - 1]]
    classes = np.zeros_like(predicted)
    for c, token in enumerate(frequent, start=1):
        classes[predicted == token] = c
    return classes
