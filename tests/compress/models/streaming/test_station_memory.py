"""Memory that stations take in turns: addresses that stay, neighbours that do not touch each other, and weights that are gone."""

from itertools import pairwise

import torch

from bitwright.compress.models.streaming.station_memory import StationMemory
from bitwright.compress.models.streaming.stations import Station

SIZES = {"embedding": (50, 8), "first": (4, 8), "second": (6, 8), "third": (3, 8), "bias": (3,), "head": (50, 8)}
PARTS = (("embedding",), ("first",), ("second",), ("bias", "third"), ("head",))


def memory(*parts: tuple[str, ...]) -> StationMemory:
    stations = [Station(i, str(i), frozenset(names), is_block=0 < i < len(parts) - 1) for i, names in enumerate(parts)]
    shapes = {name: torch.empty(SIZES[name], device="meta") for names in parts for name in names}
    return StationMemory(stations, shapes, dtype=torch.float32, device=torch.device("cpu"))


def test_parameters_have_addresses_of_their_own_that_stay() -> None:
    made = memory(*PARTS)
    storages = {name: parameter.untyped_storage()._cdata for name, parameter in made.parameters.items()}
    assert len(set(storages.values())) == len(SIZES)
    assert {name: tuple(parameter.shape) for name, parameter in made.parameters.items()} == SIZES
    assert all(made.is_absent(parameter) for parameter in made.parameters.values())
    for name in SIZES:
        made.hold(name).fill_(1)
        assert not made.is_absent(made.parameters[name][:1])
        made.free([name])
    assert storages == {name: parameter.untyped_storage()._cdata for name, parameter in made.parameters.items()}


def test_a_station_and_the_next_one_keep_their_weights() -> None:
    made = memory(*PARTS)
    for number, (names, following) in enumerate(pairwise(PARTS)):
        for name in (*names, *following):
            made.hold(name).fill_(number + len(name))
        assert all((made.parameters[name] == number + len(name)).all() for name in (*names, *following))
        made.free(names, PARTS[number + 2] if number + 2 < len(PARTS) else ())
        assert all((made.parameters[name] == number + len(name)).all() for name in following)


def test_parameters_of_several_stations_have_memory_of_their_own() -> None:
    made = memory(("embedding",), ("first",), ("second",), ("embedding",))
    made.hold("embedding").fill_(3)
    made.hold("second").fill_(1)
    assert (made.parameters["embedding"] == 3).all()
    made.free(["embedding"])
    assert made.is_absent(made.parameters["embedding"])
    assert made.parameters["embedding"].untyped_storage().nbytes() == 0
