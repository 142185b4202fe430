from pathlib import Path

import numpy as np

from bitwright.compress import GgmlCodec, Model, PackedTensors, measure_distortion
from bitwright.objectives import Tokens, collect_importance
from bitwright.predictors import importance_error_table
from bitwright.predictors.sensitivity.weights.weight_error import absolute_error_table, weight_error_table, weighted_error_table
from bitwright.progress import Silent
from bitwright.spaces import Space
from bitwright.testing.proxy_contract import TableContract
from tests.measuring import random_tokens, space_of


class TestWeightErrorTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        return weight_error_table(measure_distortion(space, levels, progress=Silent()))


class TestAbsoluteErrorTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        return absolute_error_table(measure_distortion(space, levels, progress=Silent()), space, levels=levels)


class TestImportanceErrorTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        weighted = PackedTensors(levels.folder, model.source, GgmlCodec(), collect_importance(model, tokens, progress=Silent()))
        return importance_error_table(measure_distortion(space, weighted, progress=Silent()))


class TestWeightedErrorTable(TableContract):
    def table(self, model: Model, levels: PackedTensors, *, space: Space, tokens: Tokens, folder: Path) -> np.ndarray:
        weighted = PackedTensors(levels.folder, model.source, GgmlCodec(), collect_importance(model, tokens, progress=Silent()))
        return weighted_error_table(measure_distortion(space, weighted, progress=Silent()), space, levels=weighted)


def test_errors_are_relative_absolute_and_weighted_by_channel(mixtral: Model, tmp_path: Path) -> None:
    space = space_of(mixtral, ("Q8_0", "Q4_0"))
    importance = collect_importance(mixtral, random_tokens(6, 8), progress=Silent())
    levels = PackedTensors(tmp_path, mixtral.source, GgmlCodec(), importance)
    distortion = measure_distortion(space, levels, progress=Silent())
    for u, f in np.argwhere(space.offered):
        (tensor,) = space.units[u].tensors
        original = mixtral.source.read(tensor).astype(np.float64)
        change = levels.weights(tensor, space.formats[f]) - original
        channels = importance.get(tensor.name, np.ones((1, tensor.shape[-1])))
        d = np.repeat(channels, len(original) // len(channels), axis=0)
        np.testing.assert_allclose(weight_error_table(distortion)[u, f], (change**2).sum() / (original**2).sum(), rtol=1e-4)
        np.testing.assert_allclose(absolute_error_table(distortion, space, levels=levels)[u, f], (change**2).sum(), rtol=1e-4)
        np.testing.assert_allclose(importance_error_table(distortion)[u, f], (d * change**2).sum() / (d * original**2).sum(), rtol=1e-4)
        np.testing.assert_allclose(weighted_error_table(distortion, space, levels=levels)[u, f], (d * change**2).sum(), rtol=1e-4)
