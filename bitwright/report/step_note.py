"""Comparison of a plan with steps that move channels and the same plan without them, in words."""

from dataclasses import dataclass

from bitwright.report.numerals import significant, with_error


@dataclass(frozen=True)
class StepNote:
    """Plan with `steps`, joined by commas, against the plan without them on held-out text, both in nats/token and at the same bytes.

    `difference` is that of the two, paired by sequence, with its standard error; `ships` says whether these are the steps that ship.
    """

    steps: str
    nats_per_token: float
    standard_error: float
    alone_nats: float
    difference: tuple[float, float]
    ships: bool

    @property
    def sentence(self) -> str:
        """The comparison in a sentence."""
        with_them = with_error(self.nats_per_token, self.standard_error)
        verdict = "so they ship" if "," in self.steps else "so it ships"
        if not self.ships:
            verdict = "another ships" if self.nats_per_token < self.alone_nats else "which ships without"
        gap = with_error(*self.difference)
        return f"Step {self.steps}: {with_them} nats/token with it, {significant(self.alone_nats)} without (difference {gap}, paired): {verdict}."
