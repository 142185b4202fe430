import numpy as np
import pytest
import torch

from bitwright.compress import Model
from bitwright.errors import ObjectiveError
from bitwright.objectives import KullbackLeibler, TokenObjective
from bitwright.objectives.metrics.perplexity import Perplexity
from bitwright.objectives.text.exemplars import OnSequences, exemplars, predictions
from tests.measuring import random_tokens
from tests.objectives.objective_contract import IDS, DistanceContract, by_sequence, distributions, near
from tests.sentences import sentence


class TestOnAllSequences(DistanceContract):
    def objective(self) -> TokenObjective:
        return OnSequences(KullbackLeibler(), np.ones(60, dtype=bool))


def test_an_exemplar_is_where_the_population_agrees_on_another_token() -> None:
    original = np.array([[7, 7, 7, 7, 7]])
    compressed = np.array(
        [
            [[7, 8, 8, 8, 1]],
            [[7, 8, 8, 9, 2]],
            [[7, 8, 7, 7, 7]],
            [[7, 8, 9, 7, 7]],
            [[8, 7, 1, 8, 8]],
        ]
    )
    # all but one keep it; all but one leave it; 8 leads 2 to 1; a draw of 8 and 7; 7 leads though most leave it
    assert exemplars(original, compressed).tolist() == [[False, True, True, False, False]]


def test_one_compressed_model_s_exemplars_are_its_flips() -> None:
    rng = np.random.default_rng(0)
    original, compressed = rng.integers(3, size=(4, 6)), rng.integers(3, size=(1, 4, 6))
    assert exemplars(original, compressed).tolist() == (original != compressed[0]).tolist()


def test_predictions_are_the_first_tokens(tied: Model) -> None:
    tokens = random_tokens(11, 5)
    with torch.inference_mode():
        logits = tied.module(torch.from_numpy(tokens.ids), use_cache=False).logits
    assert predictions(tied, tokens).tolist() == logits.argmax(dim=-1).tolist()


def test_only_the_chosen_sequences_count() -> None:
    chosen = np.arange(11) % 3 == 0
    objective, p = OnSequences(KullbackLeibler(), chosen), distributions(0)
    values = by_sequence(objective, p, near(p, 1), IDS)
    assert values.shape == (11,)
    assert objective.summarise(values) == KullbackLeibler().summarise(values[chosen])
    assert objective.summarise(values[:5]) == KullbackLeibler().summarise(values[[0, 3]])
    assert objective.name == "kl of 4 sequences"
    assert OnSequences(Perplexity(), chosen).summarise(values) == Perplexity().summarise(values[chosen])


def test_no_chosen_sequence_is_an_error() -> None:
    with pytest.raises(ObjectiveError) as refused:
        OnSequences(KullbackLeibler(), np.arange(11) == 9).summarise(np.ones(8))
    sentence(refused.value, 8, 1)
