"""Parts of other packages: found by name, and refused in a sentence where something is wrong with them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import bitwright as bw
from bitwright import plugins
from bitwright.errors import LibraryError, RunError, UserError
from bitwright.pipeline.settings import settings_from_json
from bitwright.predictors import PROXY_PARTS, Passes, Proxy, predictor_named, proxy_named
from bitwright.predictors.sensitivity.weights.weight_error import weight_error_table
from tests.sentences import sentence

MINE = Proxy("mine", "this test", lambda _: Passes(0, 0), lambda _, distortion: weight_error_table(distortion))
Install = Callable[..., None]
PROXY = """
from bitwright.predictors import Passes, Proxy
THEIRS = Proxy("{name}", "a test", lambda _: Passes(0, 0), lambda subject, distortion: distortion.plain)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """`install(package, module text, name=object)` puts a package with entry points of proxies on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "theirs", raising=False)

    def put(package: str, text: str, **entries: str) -> None:
        (tmp_path / f"{package}.py").write_text(text, encoding="utf-8")
        info = tmp_path / f"{package}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.5\n", encoding="utf-8")
        lines = (f"{name} = {package}:{place}\n" for name, place in entries.items())
        (info / "entry_points.txt").write_text("[bitwright.proxies]\n" + "".join(lines), encoding="utf-8")
        plugins._declared.cache_clear()

    yield put
    plugins._declared.cache_clear()
    PROXY_PARTS.handed.clear()


def test_a_proxy_of_another_package_is_found_and_its_version_recorded(install: Install) -> None:
    install("theirs", PROXY.format(name="salt"), salt="THEIRS")
    assert proxy_named("salt").source == "a test"
    settings = bw.Settings("m", sensitivity="salt")
    assert PROXY_PARTS.origin("salt") == "theirs 1.5"
    assert settings_from_json(settings.to_json()) == settings


def test_a_run_without_the_package_that_it_was_made_with_is_a_sentence(install: Install, tmp_path: Path) -> None:
    install("theirs", PROXY.format(name="salt"), salt="THEIRS")
    said = bw.Settings("m", sensitivity="salt").to_json()
    (tmp_path / "theirs-1.5.dist-info" / "entry_points.txt").unlink()
    plugins._declared.cache_clear()
    with pytest.raises(RunError) as refused:
        settings_from_json(said)
    sentence(refused.value, "salt", "sensitivity", "theirs 1.5")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("import nowhere_at_all", ("theirs 1.5", "bitwright.proxies", "ModuleNotFoundError")),
        ("THEIRS = 3", ("theirs 1.5", "Proxy", "int")),
        (PROXY.format(name="pepper"), ("theirs 1.5", "'salt'", "'pepper'")),
    ],
)
def test_a_broken_package_is_named(install: Install, text: str, values: tuple[str, ...]) -> None:
    install("theirs", text, salt="THEIRS")
    assert proxy_named("gradient").name == "gradient"
    with pytest.raises(LibraryError) as refused:
        proxy_named("salt")
    sentence(refused.value, *values)


def test_a_name_of_two_packages_is_refused(install: Install) -> None:
    install("theirs", PROXY.format(name="weight"), weight="THEIRS")
    with pytest.raises(LibraryError) as refused:
        proxy_named("weight")
    sentence(refused.value, "weight", "theirs 1.5", "bitwright", "uninstall")


def test_an_object_is_handed_in(install: Install) -> None:
    settings = bw.Settings("m", sensitivity=MINE)
    assert settings.sensitivity == "mine"
    assert proxy_named(settings.sensitivity) is MINE
    assert settings_from_json(settings.to_json()) == settings


@pytest.mark.parametrize("wrong", [len, Proxy("weight", "not the built-in one", MINE.passes, MINE.price)])
def test_an_object_that_is_no_proxy_or_has_the_name_of_another_is_a_sentence(wrong: object) -> None:
    with pytest.raises(UserError) as refused:
        bw.Settings("m", sensitivity=wrong)  # type: ignore[arg-type]
    sentence(refused.value, "A sensitivity must be a known proxy")


def test_wrong_methods_objectives_codecs_and_engines_are_sentences() -> None:
    for make in (
        lambda: bw.pipeline.Search(len),  # type: ignore[arg-type]
        lambda: bw.pipeline.Search(bw.pipeline.method_named("auto"), objectives=(len,)),  # type: ignore[arg-type]
        lambda: bw.Settings("m", target="integers", codec=len),  # type: ignore[arg-type]
        lambda: bw.Settings("m", target=len),  # type: ignore[arg-type]
        lambda: predictor_named(len, None, None, seed=0),  # type: ignore[arg-type]
    ):
        with pytest.raises(UserError) as refused:
            make()
        sentence(refused.value, "builtin_function_or_method", "docs/extending.md")
