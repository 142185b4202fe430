"""Several choices of a streamed model, evaluated together: the values of one after another in memory, at one reading of the weights."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from bitwright.compress import Model, Room, choice_loader, load, swapping
from bitwright.compress.models.streaming.weight_reader import WeightReader
from bitwright.objectives import Evaluator, KullbackLeibler, Measurement, Reference, Shape, Store, sample_texts
from bitwright.objectives.metrics.flips import Flips
from bitwright.objectives.text.routing import collect_routing
from bitwright.progress import Silent
from bitwright.spaces import Choice, Space
from tests.measuring import levels_of, random_tokens, space_of, uniform

pytestmark = pytest.mark.slow

MENU, TOKENS = ("Q8_0", "Q5_0", "Q4_0"), random_tokens(20, 8)


@contextmanager
def evaluator(model: Model, folder: Path) -> Iterator[tuple[Evaluator, Space]]:
    folder.mkdir()
    space, levels, store = space_of(model, MENU), levels_of(model, folder), Store(folder / "run.sqlite")
    reference = Reference(model, TOKENS, scratch=folder, progress=Silent())
    with swapping(model) as swapper:
        load_choice = choice_loader(swapper, model, levels, space)
        yield Evaluator(model, load_choice, reference=reference, objectives=(KullbackLeibler(), Flips()), store=store), space
    store.close()


def choices(space: Space) -> list[Choice]:
    mixed = np.where(np.arange(len(space.units)) % 2 > 0, uniform(space, "Q4_0"), uniform(space, "Q8_0"))
    return [uniform(space, "Q8_0"), mixed, uniform(space, "Q4_0")]


def evaluated(model: Model, folder: Path, *, against: bool) -> list[Measurement]:
    with evaluator(model, folder) as (evaluate, space):
        first, *others = choices(space)
        return evaluate.evaluate(others, len(TOKENS.ids), against=[first] if against else [])


@pytest.mark.parametrize("against", [False, True])
@pytest.mark.parametrize("name", ["llama_tied", "tiny_mixtral"])
def test_choices_have_the_values_of_the_model_in_memory(name: str, *, against: bool, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(name)
    expected = evaluated(load(str(folder)), tmp_path / "in memory", against=against)
    found = evaluated(load(str(folder), room=Room(tmp_path, stream=True)), tmp_path / "streamed", against=against)
    for one, known in zip(found, expected, strict=True):
        assert one.n_sequences == known.n_sequences
        np.testing.assert_array_equal(one.by_sequence, known.by_sequence)
    assert not np.array_equal(expected[0].by_sequence, expected[1].by_sequence)


def test_the_weights_are_read_once_for_all_choices(llama_gqa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, fill = Counter[str](), WeightReader.fill

    def counted(reader: WeightReader, name: str, parameter: torch.Tensor) -> None:
        read[name] += 1
        fill(reader, name, parameter)

    model = load(str(llama_gqa), room=Room(tmp_path, stream=True))
    with evaluator(model, tmp_path / "run") as (evaluate, space):
        assert evaluate.at_once > 2
        monkeypatch.setattr(WeightReader, "fill", counted)
        evaluate.evaluate(choices(space), len(TOKENS.ids))
    assert set(read.values()) == {1}


def test_routing_is_that_of_the_model_in_memory(tiny_mixtral: Path, tmp_path: Path) -> None:
    models = load(str(tiny_mixtral)), load(str(tiny_mixtral), room=Room(tmp_path, stream=True))
    expected, found = (collect_routing(model, TOKENS, progress=Silent()).to_array() for model in models)
    np.testing.assert_array_equal(found, expected)


def test_text_sampled_is_that_of_the_model_in_memory(llama_tied: Path, tmp_path: Path) -> None:
    models = load(str(llama_tied)), load(str(llama_tied), room=Room(tmp_path, stream=True))
    expected, found = (sample_texts(model, Shape(2, 2, 8), seed=0, progress=Silent()) for model in models)
    np.testing.assert_array_equal(found.calibration.ids, expected.calibration.ids)
    np.testing.assert_array_equal(found.held_out.ids, expected.held_out.ids)
