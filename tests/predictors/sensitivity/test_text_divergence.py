from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitwright.compress import Model, planned_weights
from bitwright.objectives import Reference
from bitwright.predictors.sensitivity.text_divergence import open_divergence
from bitwright.progress import Silent
from bitwright.whole_files import reserve
from tests.measuring import Divergence, levels_of, random_tokens, space_of, uniform
from tests.predictors.subjects import opened


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("something was measured again")


def test_it_is_the_divergence_and_each_is_measured_once(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, levels, tokens = space_of(tied, ("Q8_0", "Q4_0")), levels_of(tied, tmp_path), random_tokens(3, 6)
    objective = Divergence(tied, levels, space=space, reference=Reference(tied, tokens, scratch=tmp_path, progress=Silent()))
    form, choice = int(uniform(space, "Q4_0")[1]), uniform(space, "Q4_0")
    weights = planned_weights(tied, levels, formats={space.units[2].tensors[0].name: space.formats[form]})
    expected = [objective(choice).nats_per_token, objective.of_one(1, form), objective.of_one(2, form)]
    with opened(tied, levels, space=space, tokens=tokens, store=tmp_path / "a.sqlite") as subject:
        for _ in range(2):  # the second time everything is cached, and not even the original is run
            with open_divergence(subject) as divergence:
                found = [divergence.of_choice(choice), divergence.of_one(1, form), divergence.with_weights("mine", weights)]
            assert found == expected
            monkeypatch.setattr("bitwright.predictors.sensitivity.text_divergence.Reference", refuse)
        with open_divergence(subject) as divergence, pytest.raises(AssertionError, match="again"):
            divergence.of_choice(uniform(space, "Q8_0"))
    assert len(set(expected)) == 3


def test_other_tokens_are_measured_again(tied: Model, tmp_path: Path) -> None:
    space, levels, found = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path), []
    for seed in (0, 1):
        with (
            opened(tied, levels, space=space, tokens=random_tokens(2, 6, seed), store=tmp_path / "a.sqlite") as subject,
            open_divergence(subject) as divergence,
        ):
            found.append(divergence.of_choice(uniform(space, "Q4_0")))
    assert found[0] != found[1]


def test_the_original_is_read_before_anything_is_changed_and_its_file_goes(tied: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserved: list[int] = []

    def noted(file: int, n_bytes: int) -> None:
        reserved.append(n_bytes)
        reserve(file, n_bytes)

    monkeypatch.setattr("bitwright.objectives.reference.MEMORY_BOUND_BYTES", 0)
    monkeypatch.setattr("bitwright.objectives.reference.reserve", noted)
    space, levels = space_of(tied, ("Q4_0",)), levels_of(tied, tmp_path)
    with opened(tied, levels, space=space, tokens=random_tokens(2, 6), store=tmp_path / "a.sqlite") as subject:
        with open_divergence(subject) as divergence:
            value = divergence.of_choice(uniform(space, "Q4_0"))
        assert len(reserved) == 1
        # the file of the predictions has no name, so nothing of it is there even after a kill
        assert not list(levels.folder.glob("reference*"))
    assert value > 0
    assert np.isfinite(value)
