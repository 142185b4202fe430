"""Linear coefficients of HIGGS: sensitivity of the model to Gaussian noise in each unit, independent of the format.

    KL ≈ Σ_u a_u t_u²        t_u² = ‖ΔW_u‖² / ‖W_u‖², the relative squared error of unit u

Source: Malinovskii et al., "Pushing the Limits of Large Language Model Quantization via the Linearity Theorem" (NAACL 2025, arXiv 2411.17525). The
theorem holds for small errors without a preferred direction, such as those of its rotated formats. a_u is measured with Gaussian noise of known t in
unit u alone, at several levels of t, as the slope of the least-squares line through the origin,

    a_u = Σ_j t_j² KL_j / Σ_j t_j⁴

so a format added later needs no measurement, and the table is a_u times its relative error. As in the paper's data-free variant the loss is the
divergence from the original; here over the calibration text, with independent noise at every level.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import Floats, Weights
from bitwright.predictors.sensitivity.subject import Subject
from bitwright.predictors.sensitivity.text_divergence import open_divergence
from bitwright.spaces import Tensor

NOISE_LEVELS = (0.05, 0.1, 0.15, 0.2)


def noise_coefficients(subject: Subject, levels: Sequence[float] = NOISE_LEVELS) -> NDArray[np.float64]:
    """Measure a_u `(n_units,)` in nats per token, from noise of the relative norms `levels`.

    One forward pass for the original, and one for each unit and level; every finished one is cached.
    """
    squares, found = np.square(np.array(levels)), np.zeros((len(subject.space.units), len(levels)))
    with subject.progress.stage("Measuring noise in one unit at a time", found.size) as advance, open_divergence(subject) as divergence:
        for u, j in np.ndindex(found.shape):
            found[u, j] = divergence.with_weights(f"noise/{u}/{levels[j]}/{j}", noisy(subject, u, t=levels[j], stream=j))
            advance(1)
    coefficients: NDArray[np.float64] = found @ squares / (squares**2).sum()
    return coefficients


def noise_table(coefficients: NDArray[np.float64], relative_error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a_u t² `(n_units, n_formats)` in nats per token, from t² = `relative_error` `(n_units, n_formats)`; NaN where that is NaN.

    A negative coefficient, which only measurement noise can cause, counts as zero.
    """
    table: NDArray[np.float64] = np.maximum(coefficients, 0)[:, None] * relative_error
    return table


def noisy(subject: Subject, unit: int, *, t: float, stream: int) -> Weights:
    """Return every tensor of a unit plus Gaussian noise of `t` times its norm; each `stream` draws independent noise."""
    tensors = subject.space.units[unit].tensors
    return {tensor.name: _noisy(subject, tensor, t, np.random.default_rng([subject.seed, unit, stream, i])) for i, tensor in enumerate(tensors)}


def _noisy(subject: Subject, tensor: Tensor, t: float, rng: np.random.Generator) -> Callable[[], Floats]:
    def made() -> Floats:
        weights = subject.levels.source.read(tensor)
        noise = rng.standard_normal(weights.shape, dtype=np.float32)
        scale = t * float(np.linalg.norm(weights)) / max(float(np.linalg.norm(noise)), 1e-30)
        return weights + np.float32(scale) * noise

    return made
