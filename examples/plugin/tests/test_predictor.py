import numpy as np
from bitwright_example.predictor import PowerLaw

from bitwright.testing.predictor_contract import PredictorContract


class TestPowerLaw(PredictorContract):
    needed = 3

    def predictor(self, table: np.ndarray) -> PowerLaw:
        return PowerLaw(table)
