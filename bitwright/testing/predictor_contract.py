"""Contract tests of predictors of whole plans. Inherit from `PredictorContract`, or from `LearningContract` if it corrects a table:

class TestMine(LearningContract):
    needed = 3

    def predictor(self, table):
        return MyPredictor(table)
"""

from abc import ABC, abstractmethod

import numpy as np
import pytest
import scipy

from bitwright.errors import UserError
from bitwright.predictors import Predictor, Validation
from bitwright.testing.random_plans import Plans, additive, interacting, mispriced
from bitwright.testing.sentences import sentence

N_KNOWN = 60


def held_out(predictor: Predictor, plans: Plans, n_known: int = N_KNOWN) -> Validation:
    """Fit to the first plans, predict the rest, and return the predictions with the true values."""
    known, rest = plans.part(slice(n_known)), plans.part(slice(n_known, None))
    means, deviations = predictor.fit(*known.known())(rest.choices)
    return Validation(rest.truth, np.zeros(len(rest.truth)), means, deviations)


class PredictorContract(ABC):
    """Contract of a predictor of whole plans.

    `needed` is the fewest choices of 12 units that it learns from. Held-out predictions of additive plans are within `exactness` of their spread.
    """

    needed: int
    exactness = 0.01

    @abstractmethod
    def predictor(self, table: np.ndarray) -> Predictor:
        """Return the predictor under test for a table `(n_units, n_formats)`."""

    def test_predicts_a_mean_and_a_deviation_for_each_choice(self) -> None:
        """Require finite means and deviations `(n,)`, no deviation below 0."""
        plans = additive(N_KNOWN + 7, noise=0.05)
        found = held_out(self.predictor(plans.table), plans)
        for each in (found.means, found.deviations):
            assert each.shape == (7,)
            assert np.isfinite(each).all()
        assert (found.deviations >= 0).all()

    def test_predicts_no_choices(self) -> None:
        """Require empty predictions for no choices."""
        plans = additive(N_KNOWN, noise=0.05)
        means, deviations = self.predictor(plans.table).fit(*plans.known())(plans.choices[:0])
        assert means.shape == deviations.shape == (0,)

    def test_is_the_same_again(self) -> None:
        """Require the same predictions from the same measurements."""
        plans = additive(N_KNOWN + 20, noise=0.05)
        first, again = (held_out(self.predictor(plans.table), plans) for _ in range(2))
        np.testing.assert_array_equal(first.means, again.means)
        np.testing.assert_array_equal(first.deviations, again.deviations)

    def test_a_fit_changes_nothing(self) -> None:
        """Require choices, values and errors to be left unchanged, and an earlier fit to predict as before."""
        plans, others = additive(N_KNOWN + 20, noise=0.05), additive(N_KNOWN, noise=0.3, seed=1)
        kept = [array.copy() for array in (plans.table, *plans.known())]
        predictor = self.predictor(plans.table)
        before = predictor.fit(*plans.part(slice(N_KNOWN)).known())
        means = before(plans.choices)[0]
        predictor.fit(*others.known())
        np.testing.assert_array_equal(before(plans.choices)[0], means)
        again = predictor.fit(*plans.part(slice(N_KNOWN)).known())  # of as many choices: in other company, a sum may be rounded otherwise
        np.testing.assert_array_equal(again(plans.choices)[0], means)
        for array, copy in zip((plans.table, *plans.known()), kept, strict=True):
            np.testing.assert_array_equal(array, copy)

    def test_a_choice_is_predicted_alike_in_any_company(self) -> None:
        """Require the prediction of a choice not to depend on the others asked for."""
        plans = additive(N_KNOWN + 20, noise=0.05)
        predict = self.predictor(plans.table).fit(*plans.part(slice(N_KNOWN)).known())
        together = np.array(predict(plans.choices))
        alone = np.concatenate([np.array(predict(plans.choices[i : i + 1])) for i in range(len(plans.choices))], axis=1)
        np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-9)

    def test_sums_are_learnt_as_sums(self) -> None:
        """Require additive divergences to be predicted to within `exactness` of their spread."""
        plans = additive(N_KNOWN + 100, noise=0.0)
        found = held_out(self.predictor(plans.table), plans)
        assert found.root_mean_square < self.exactness * found.values.std()

    def test_noisy_sums_are_predicted_better_than_by_their_mean(self) -> None:
        """Require noisy additive divergences to be predicted with at most 0.6 of their spread as error."""
        plans = additive(N_KNOWN + 100, noise=0.1)
        found = held_out(self.predictor(plans.table), plans)
        assert found.root_mean_square < 0.6 * found.values.std()
        assert found.spearman > 0.75

    def test_intervals_have_their_coverage(self) -> None:
        """Require that 90 % intervals contain 80 to 98 % of held-out values, over three truths with interactions that no table has."""
        inside = []
        for seed in range(3):
            plans = interacting(N_KNOWN + 100, strength=0.1, noise=0.05, seed=seed)
            inside.append(held_out(self.predictor(plans.table), plans).coverage)
        assert 0.8 <= np.mean(inside) <= 0.98

    def test_too_few_choices_are_refused(self) -> None:
        """Require a fit to `needed` choices, and a `UserError` for one less."""
        plans = additive(self.needed, noise=0.05)
        predictor = self.predictor(plans.table)
        assert np.isfinite(predictor.fit(*plans.known())(plans.choices)[0]).all()
        if self.needed:
            with pytest.raises(UserError) as refused:
                predictor.fit(*plans.part(slice(self.needed - 1)).known())
            sentence(refused.value, str(self.needed), str(self.needed - 1))


class LearningContract(PredictorContract):
    """Contract of a predictor that corrects its table."""

    def test_a_unit_that_the_table_misprices_is_noticed(self) -> None:
        """Require at most half the table's error where it misprices a unit."""
        plans = mispriced(N_KNOWN + 100, factor=3, noise=0.03)
        found = held_out(self.predictor(plans.table), plans)
        by_table = plans.table[np.arange(len(plans.table)), plans.choices].sum(axis=1)[N_KNOWN:]
        best_line = np.polyval(np.polyfit(by_table, found.values, 1), by_table)
        assert found.root_mean_square < 0.5 * np.sqrt(np.mean((best_line - found.values) ** 2))
        assert 1 - found.spearman < 0.5 * (1 - scipy.stats.spearmanr(by_table, found.values)[0])
