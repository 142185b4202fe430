from pathlib import Path

import numpy as np
import pytest

from bitwright.compress import Levels, Model
from bitwright.objectives import Divergence, Reference, Store, Tokens
from bitwright.predictors import measured_table
from bitwright.progress import Silent
from bitwright.spaces import Space
from tests.measuring import space_of

from .contract import TableContract


class TestMeasuredTable(TableContract):
    def table(self, model: Model, levels: Levels, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        objective = Divergence(model, levels, space=space, reference=Reference(model, tokens, scratch=folder, progress=Silent()))
        store = Store(folder / "a.sqlite")
        try:
            return measured_table(space, objective.of_one, store=store, progress=Silent())
        finally:
            store.close()


def test_each_offered_pair_is_measured_once_and_kept(tied: Model, tmp_path: Path) -> None:
    space, store, asked = space_of(tied, ("Q8_0", "Q4_0")), Store(tmp_path / "a.sqlite"), []

    def of_one(unit: int, form: int) -> float:
        if len(asked) == 5:
            raise KeyboardInterrupt
        asked.append((unit, form))
        return unit + form / 100

    with pytest.raises(KeyboardInterrupt):
        measured_table(space, of_one, store=store, progress=Silent())
    first = asked.copy()
    asked.clear()
    store.close()
    store = Store(tmp_path / "a.sqlite")
    while True:
        try:
            table = measured_table(space, of_one, store=store, progress=Silent())
            break
        except KeyboardInterrupt:
            first += asked
            asked.clear()
    store.close()
    every = [tuple(pair) for pair in np.argwhere(space.offered).tolist()]
    assert first + asked == every
    assert np.isnan(table[~space.offered]).all()
    assert all(table[u, f] == u + f / 100 for u, f in every)
