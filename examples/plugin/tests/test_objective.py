from bitwright_example.objective import TotalVariation

from bitwright.testing.objective_contract import TokenContract


class TestTotalVariation(TokenContract):
    def objective(self) -> TotalVariation:
        return TotalVariation()
