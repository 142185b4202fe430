from dataclasses import replace

import numpy as np

from bitwright.predictors.plans.predictor import Predictor
from bitwright.predictors.plans.ridge import RidgePredictor
from bitwright.predictors.plans.transfer import TransferPredictor
from tests.predictors.predictor_contract import LearningContract, held_out
from tests.predictors.random_plans import Plans, additive, interacting


class TestTransferPredictor(LearningContract):
    """Predictor with the table itself as the cheap prediction."""

    needed = 0

    def predictor(self, table: np.ndarray) -> Predictor:
        nothing = np.zeros(0)
        return TransferPredictor(RidgePredictor(table).fit(np.zeros((0, len(table)), dtype=np.int64), nothing, nothing), table)


def cheap_and_dear(n_cheap: int) -> tuple[TransferPredictor, Plans]:
    """Cheap values are the dear ones to the power of 1.1, a third too low; and choices of the same truth that the cheap ones do not hold."""
    plans = interacting(n_cheap + 120, strength=0.1, noise=0.01)
    cheap = plans.part(slice(n_cheap))
    values = cheap.values**1.1 / 1.5
    known = RidgePredictor(plans.table).fit(cheap.choices, values, 0.01 * values)
    return TransferPredictor(known, plans.table), plans.part(slice(n_cheap, None))


def test_few_expensive_measurements_do_after_many_cheap_ones() -> None:
    transfer, dear = cheap_and_dear(200)
    few, alone = held_out(transfer, dear, 12), held_out(RidgePredictor(dear.table), dear, 12)
    assert few.root_mean_square < 0.5 * alone.root_mean_square
    assert few.coverage >= 0.8
    assert few.deviations.mean() < alone.deviations.mean()


def test_without_expensive_measurements_it_is_the_cheap_prediction() -> None:
    transfer, dear = cheap_and_dear(60)
    means, deviations = transfer.fit(dear.choices[:0], dear.values[:0], dear.errors[:0])(dear.choices)
    np.testing.assert_allclose(means, transfer.cheap(dear.choices)[0])
    np.testing.assert_allclose(deviations, means)


def test_the_uncertainty_of_the_cheap_prediction_is_carried_on() -> None:
    plans = additive(100, noise=0.01)
    table, unsure = plans.table, np.arange(100) % 2 == 0
    unsure_choices = {plans.choices[i].tobytes() for i in np.flatnonzero(unsure)}

    def cheap(choices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = table[np.arange(len(table)), choices].sum(axis=1)
        return mean, mean * np.array([0.5 if choice.tobytes() in unsure_choices else 0.01 for choice in choices])

    rng = np.random.default_rng(0)
    off = replace(plans, values=plans.truth * np.where(unsure, np.exp(0.4 * rng.standard_normal(100)), 1.0))
    _, deviations = TransferPredictor(cheap, table).fit(*off.part(slice(60)).known())(off.choices[60:])
    relative = deviations / off.truth[60:]
    assert relative[unsure[60:]].mean() > 3 * relative[~unsure[60:]].mean()
