import numpy as np
import torch

from bitwright.predictors.sensitivity.activations.covariance import Covariance, correlation, size_bytes


def test_batches_add_up() -> None:
    """The last channel has a mean ten thousand times its deviation."""
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((60, 4)) @ rng.standard_normal((4, 4)) + np.array([0, 0, 0, 1e4])).astype(np.float32)
    covariance = Covariance(4, torch.device("cpu"))
    for batch in np.split(vectors, 3):
        covariance.add(torch.from_numpy(batch.reshape(2, 10, 4)))
    np.testing.assert_allclose(covariance.matrix(), np.cov(vectors.astype(np.float64).T, bias=True), rtol=1e-6)


def test_a_channel_that_does_not_vary_stays_in_its_own_unit() -> None:
    found = correlation(np.array([[4.0, 1.0, 0], [1.0, 9.0, 0], [0, 0, 0]]), np.array([2.0, 3.0, 0.0]))
    np.testing.assert_allclose(found, [[1, 1 / 6, 0], [1 / 6, 1, 0], [0, 0, 0]])


def test_size() -> None:
    assert size_bytes(3) == 8 * (9 + 3)
