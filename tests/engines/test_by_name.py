"""Engines by name, and those of other packages."""

from importlib.metadata import EntryPoint

import pytest

from bitwright import plugins
from bitwright.engines import ENGINES, engine_named, engine_names, target_named
from bitwright.engines.native.engine import NativeEngine
from bitwright.engines.native.target import NATIVE
from bitwright.errors import LibraryError, UserError
from bitwright.pipeline import Settings
from tests.sentences import sentence

GROUP = "bitwright.engines"
#: as a package of somebody would have it
THEIRS = NativeEngine(type(NATIVE)("theirs", "2", NATIVE.formats, alignment=1))
NO_ENGINE = "a text"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"theirs": f"{__name__}:THEIRS", "other": f"{__name__}:THEIRS", "text": f"{__name__}:NO_ENGINE", "gone": "no_such_package:ENGINE"}
    points = tuple(EntryPoint(name, value, GROUP) for name, value in values.items())
    monkeypatch.setattr(plugins, "_declared", lambda group: points if group == GROUP else ())


def test_every_engine_is_called_by_its_name() -> None:
    assert all(engine_named(name) is engine and engine.name == name for name, engine in ENGINES.items())


@pytest.mark.usefixtures("installed")
def test_an_engine_of_another_package_is_a_target_like_others() -> None:
    assert engine_named("theirs") is THEIRS
    assert target_named("theirs") is THEIRS.target
    assert engine_names() == (*ENGINES, "theirs", "other", "text", "gone")
    assert Settings("model", target="theirs").rounding == "rtn"


@pytest.mark.usefixtures("installed")
def test_an_unknown_engine_is_told_all_choices() -> None:
    with pytest.raises(UserError) as caught:
        Settings("model", target="mlx")
    sentence(caught.value, "'mlx'", "llama.cpp", "native-channels", "theirs")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("name", "words"), [("gone", "no_such_package"), ("text", "is a str"), ("other", "'theirs'")])
def test_a_broken_entry_point_is_named(name: str, words: str) -> None:
    with pytest.raises(LibraryError) as caught:
        engine_named(name)
    sentence(caught.value, f"'{name}'", words)
