"""Similar experts, of which one can take the other's tokens."""

import numpy as np

from bitwright.compress import Bytes, Floats, Source, most_similar_experts
from bitwright.spaces import Tensor


class Made(Source):
    """Layer of experts with given weights."""

    def __init__(self, weights: np.ndarray) -> None:
        names = [f"blk.3.ffn_{kind}_exps.{expert}.weight" for expert in range(weights.shape[0]) for kind in ("up", "down")]
        self.tensors = (Tensor("blk.3.attn_q.weight", (2, 2), "F32"), *(Tensor(name, (4, 8), "F32") for name in names))
        self._weights = dict(zip(names, weights.reshape(-1, 4, 8), strict=True))

    def read(self, tensor: Tensor) -> Floats:
        return self._weights[tensor.name].astype(np.float32)

    def stored(self, tensor: Tensor) -> Bytes:
        raise NotImplementedError


def test_copies_and_near_copies_are_twins_and_strangers_are_not() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(12, 2, 4, 8))
    weights[7] = weights[2]
    weights[11] = weights[10] + 0.2 * rng.normal(size=(2, 4, 8))
    weights[4] = -weights[3]
    assert most_similar_experts(Made(weights)) == {(3, 2): 7, (3, 7): 2, (3, 10): 11, (3, 11): 10}


def test_one_matrix_alike_is_not_enough() -> None:
    weights = np.random.default_rng(1).normal(size=(3, 2, 4, 8))
    weights[1, 0] = weights[0, 0]
    assert most_similar_experts(Made(weights)) == {}


def test_an_expert_of_zeros_has_no_twin() -> None:
    assert most_similar_experts(Made(np.zeros((2, 2, 4, 8)))) == {}
