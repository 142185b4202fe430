"""Comparison of the best plan with parts taken away with the best plan of formats alone, in words."""

from dataclasses import dataclass

from bitwright.report.numerals import significant, size, with_error


@dataclass(frozen=True)
class Decoding:
    """Predicted seconds of a decode step on a device: with parts taken away, and of formats alone, None where none are within the limits."""

    device: str
    seconds: float
    alone_seconds: float | None

    @property
    def words(self) -> str:
        """The seconds in words."""
        beside = "" if self.alone_seconds is None else f", formats alone in {significant(self.alone_seconds, 4)} s"
        return f"predicted to decode a token in {significant(self.seconds, 4)} s on {self.device}{beside}"


@dataclass(frozen=True)
class StructureNote:
    """Plan with a structure against formats alone on held-out text, both in nats/token.

    `kept` says what is kept. `difference` is that of the two, paired by sequence, with its standard error; `alone_nats`, `alone_bytes` and it are
    None where no formats alone are within the limit. `kept` is empty where no structure was worth measuring. `as_cut` are the nats/token before what
    is left was refitted, None where it is as it was cut. `decoding` is None where decoding has no ceiling.
    """

    kept: str
    size_bytes: int
    nats_per_token: float
    standard_error: float
    alone_nats: float | None = None
    alone_bytes: int | None = None
    difference: tuple[float, float] | None = None
    as_cut: float | None = None
    decoding: Decoding | None = None

    @property
    def won(self) -> bool:
        """Return whether the plan with a structure ships."""
        return bool(self.kept) and (self.alone_nats is None or self.nats_per_token < self.alone_nats)

    @property
    def sentence(self) -> str:
        """The comparison in a sentence."""
        if not self.kept:
            return "Structure: taking nothing away was best, so formats alone ship."
        what = f"{size(self.size_bytes)} with {self.kept} has {with_error(self.nats_per_token, self.standard_error)} nats/token"
        if self.as_cut is not None:
            what += f" (before what is left was refitted, {significant(self.as_cut)})"
        decoded = "" if self.decoding is None else f" It is {self.decoding.words}."
        if self.alone_nats is None or self.difference is None:
            return f"Structure: {what}; no formats alone are that small{' and fast' * bool(decoded)}.{decoded}"
        gap = with_error(*self.difference)
        verdict = "so it ships" if self.won else "so formats alone ship"
        return f"Structure: {what}, formats alone {significant(self.alone_nats)} (difference {gap}, paired): {verdict}.{decoded}"
