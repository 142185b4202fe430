"""Result of a check of a checkpoint of safetensors: promised and found, for every engine that loads one."""

from dataclasses import dataclass

from bitwright.engines.check_result import Check, Mean, faults, gap_fault


@dataclass(frozen=True)
class CheckpointCheck(Check):
    """Result of checking a checkpoint. `in_engine` is the divergence of the engine's weights from the original, `engine_gap` that from torch
    with the plan's weights, `allowed_gap` what rounding explains of it.
    """

    engine_name: str
    size_promised: int
    size_found: int
    wrong_types: tuple[str, ...]
    in_torch: Mean
    in_engine: Mean
    engine_gap: Mean
    allowed_gap: float
    prompt: str
    text: str
    remark: str = ""

    @property
    def engine(self) -> str:
        """Name of the engine that loaded the checkpoint."""
        return self.engine_name

    @property
    def written(self) -> str:
        """Text that the engine wrote after the prompt."""
        return self.text

    @property
    def rows(self) -> tuple[tuple[str, str, str], ...]:
        """Rows of the table: the quantity, as promised, as found."""
        remarks = [("loaded and run by the engine", "", self.remark)] if self.remark else []
        return (
            *remarks,
            ("size", f"{self.size_promised:,} bytes", f"{self.size_found:,} bytes"),
            ("formats", "as planned", "all as planned" if not self.wrong_types else f"{len(self.wrong_types)} differ"),
            ("divergence from the original", f"{self.in_torch} in torch", f"{self.in_engine} in {self.engine_name}"),
            (f"{self.engine_name} against torch, same weights", f"at most {self.allowed_gap:.4f}", str(self.engine_gap)),
        )

    @property
    def broken(self) -> tuple[str, ...]:
        """Sentences about another size, other formats, and too large a gap to torch."""
        sizes = self.size_promised, self.size_found
        return (*faults(sizes, self.wrong_types, what="checkpoint"), *gap_fault(self.engine_name, self.engine_gap.nats_per_token, self.allowed_gap))
