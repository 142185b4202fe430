from dataclasses import replace
from pathlib import Path

import pytest

import bitwright as bw
from tests.fits import Fit
from tests.runs import BRIEF


@pytest.mark.slow
def test_a_streamed_model_gets_the_plan_of_one_in_memory(fit: Fit, tmp_path: Path) -> None:
    found, expected = bw.fit(replace(fit.settings, stream=True), fit.budget, tmp_path, by=BRIEF).plan, fit.fitted.plan
    assert found.formats == expected.formats
    assert found.divergence == expected.divergence
    assert found.importance.sha256 == expected.importance.sha256
