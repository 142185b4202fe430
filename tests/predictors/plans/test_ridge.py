import numpy as np

from bitwright.predictors.plans.predictor import Predictor
from bitwright.predictors.plans.ridge import RidgePredictor
from bitwright.testing.predictor_contract import LearningContract, held_out
from bitwright.testing.random_plans import additive, mispriced


class TestRidgePredictor(LearningContract):
    needed = 0

    def predictor(self, table: np.ndarray) -> Predictor:
        return RidgePredictor(table)


def of(table: np.ndarray, choices: np.ndarray) -> np.ndarray:
    return table[np.arange(len(table)), choices].sum(axis=1)


def test_without_measurements_it_is_the_table_with_an_unknown_factor() -> None:
    plans = additive(10, noise=0.1)
    means, deviations = RidgePredictor(plans.table).fit(plans.choices[:0], plans.values[:0], plans.errors[:0])(plans.choices)
    np.testing.assert_allclose(means, of(plans.table, plans.choices))
    np.testing.assert_allclose(deviations, means)


def test_the_table_may_be_in_any_units() -> None:
    plans = additive(80, noise=0.05)
    first, other = (held_out(RidgePredictor(table), plans) for table in (plans.table, 1e6 * plans.table))
    np.testing.assert_allclose(other.means, first.means, rtol=0.01)


def test_noisy_choices_have_little_weight() -> None:
    """A fifth of the choices are off by a factor of two and say so."""
    plans = additive(140, noise=0.01)
    wild = np.arange(140) % 5 == 0
    values, errors = np.where(wild, 2 * plans.truth, plans.values), np.where(wild, plans.truth, plans.errors)
    predict, trusting = (RidgePredictor(plans.table).fit(plans.choices[:60], values[:60], e[:60]) for e in (errors, plans.errors))
    off, off_trusting = (np.abs(np.log(p(plans.choices[60:])[0] / plans.truth[60:])).mean() for p in (predict, trusting))
    assert off < 0.7 * off_trusting


def test_more_measurements_make_it_surer_and_better() -> None:
    plans = mispriced(400, factor=3, noise=0.03)
    few, many = (held_out(RidgePredictor(plans.table), plans.part(slice(n, None) if n else slice(None)), known) for n, known in ((170, 30), (0, 200)))
    assert (many.deviations / many.means).mean() < (few.deviations / few.means).mean()
    assert many.root_mean_square < few.root_mean_square


def test_corrected_prices_come_closer_to_the_true_ones() -> None:
    plans = mispriced(60, factor=3, noise=0.03)
    true = mispriced(60, factor=1, noise=0.03).table
    found = RidgePredictor(plans.table).corrected(*plans.known())
    unit = int(np.abs(np.log(true / plans.table)).sum(axis=1).argmax())

    def off(table: np.ndarray) -> np.ndarray:
        logs = np.log(table / true)
        return logs - np.median(logs)  # the factor of the whole table does not matter

    assert np.abs(off(found)[unit, :2]).max() < 0.5 * np.log(3)  # of the prices that weigh something
    assert np.abs(np.delete(off(found), unit, axis=0)).mean() < 0.15


def test_a_single_wrong_price_is_moved_against_the_unit_s_others() -> None:
    plans = additive(100, noise=0.01)
    unit = int(plans.table[:, 0].argmax())
    table = plans.table.copy()
    table[unit, 0] /= 3
    moved = np.log(RidgePredictor(table).corrected(*plans.known()) / table)
    assert moved[unit, 0] - moved[unit, 1] > 0.5 * np.log(3)


def test_nothing_measured_corrects_nothing() -> None:
    plans = additive(3, noise=0.1)
    found = RidgePredictor(plans.table).corrected(plans.choices[:0], plans.values[:0], plans.errors[:0])
    np.testing.assert_array_equal(found, plans.table)


def test_pairs_that_are_not_offered_have_no_price() -> None:
    plans = additive(60, noise=0.05)
    table = np.column_stack([plans.table, np.full(len(plans.table), np.nan)])
    np.testing.assert_allclose(
        RidgePredictor(table).fit(*plans.known())(plans.choices)[0], RidgePredictor(plans.table).fit(*plans.known())(plans.choices)[0], rtol=1e-6
    )
