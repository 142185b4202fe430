from bitwright_example.rounding import Trim

from bitwright.testing.rounding_contract import RoundingContract


class TestTrim(RoundingContract):
    def rounding(self) -> Trim:
        return Trim()
