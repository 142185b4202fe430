import numpy as np
import torch

from bitwright.objectives import TokenObjective
from bitwright.objectives.metrics.flips import Flips
from bitwright.testing.objective_contract import IDS, DistanceContract, by_sequence, distributions, near


class TestFlips(DistanceContract):
    def objective(self) -> TokenObjective:
        return Flips()


def test_is_the_share_of_other_first_tokens() -> None:
    p = distributions(0)
    q = near(p, 1, 2.0)
    expected = (p.argmax(dim=-1) != q.argmax(dim=-1)).double().mean(dim=1).numpy()
    assert 0 < expected.mean() < 1
    np.testing.assert_allclose(by_sequence(Flips(), p, q, IDS), expected)


def test_a_token_that_the_original_ranks_as_high_is_no_flip() -> None:
    p = torch.tensor([[[-1.0, -1.0, -2.0]] * 3])
    q = torch.tensor([[[-1.0, -3.0, -3.0], [-3.0, -1.0, -3.0], [-3.0, -3.0, -1.0]]])
    assert by_sequence(Flips(), p, q, IDS[:1, :3]).tolist() == [1 / 3]
