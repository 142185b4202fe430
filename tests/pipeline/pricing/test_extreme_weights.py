"""A model with a weight that half floats do not hold and one that nothing does, from the search to what its engine loads."""

from pathlib import Path

import numpy as np
import pytest
import torch

import bitwright as bw
from bitwright.engines.llama_cpp.check import LlamaCppCheck
from bitwright.pipeline.pricing.original_model import extremes_text
from tests.compress import tiny_models as tiny
from tests.compress.models.test_extremes import changed
from tests.runs import BRIEF, small

pytestmark = pytest.mark.slow

_LARGE, _UNDEFINED = "blk.1.ffn_gate.weight", "token_embd.weight"


@pytest.fixture(scope="module")
def fitted(llama_96: Path, tmp_path_factory: pytest.TempPathFactory) -> bw.pipeline.Fitted:
    """The last row of the embedding is of no token of the text."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.1.mlp.gate_proj.weight"][3, 5] = 1e5  # 99,840 in bfloat16
        weights["model.embed_tokens.weight"][tiny.N_TOKENS - 1] = float("inf")

    folder = tmp_path_factory.mktemp("extreme")
    model, text = changed(llama_96, folder / "model", change), folder / "text.txt"
    text.write_text("".join(tiny.TEXT) * 20, encoding="utf-8")
    settings = small(model, calibration=str(text), formats=("Q8_0", "Q4_0"))
    return bw.fit(settings, bw.parse_budget("13bpw"), folder / "run", by=BRIEF)


def test_the_model_is_fitted_and_keeps_its_promises(fitted: bw.pipeline.Fitted) -> None:
    assert isinstance(fitted.check, LlamaCppCheck)
    assert fitted.check.broken == ()


def test_no_pair_is_offered_that_does_not_hold_the_weights(fitted: bw.pipeline.Fitted) -> None:
    space = bw.open_run(fitted.report.parent).space
    offered = {
        unit.tensors[0].name: {form.name for form, taken in zip(space.formats, row, strict=True) if taken}
        for unit, row in zip(space.units, space.offered, strict=True)
    }
    assert offered[_LARGE] == {"BF16"}
    assert offered["blk.0.ffn_gate.weight"] == {"Q8_0", "Q4_0"}
    assert _UNDEFINED not in offered


def test_what_nothing_holds_is_kept_and_both_are_told_by_name(fitted: bw.pipeline.Fitted) -> None:
    assert _UNDEFINED not in fitted.plan.formats
    ((_, told),) = extremes_text(bw.open_run(fitted.report.parent)).items()
    assert f"{_LARGE} goes up to 9.98e+04" in told
    assert f"{_UNDEFINED} has infinite" in told
    assert _LARGE in fitted.report.read_text(encoding="utf-8")
    assert np.isfinite(fitted.check.in_torch.nats_per_token)  # type: ignore[attr-defined]
