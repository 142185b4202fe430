"""Parts by name: those of this package, those that installed packages declare as entry points, and objects handed in by a program.

    [project.entry-points."bitwright.proxies"]
    stable-rank = "my_package.stable_rank:STABLE_RANK"

An entry point is loaded when its name is asked for, so a broken package harms only those who name its part. `docs/extending.md` shows one of each
kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Protocol, TypeVar

from bitwright.errors import LibraryError, UserError


class Named(Protocol):
    """Part with a name of its own."""

    @property
    def name(self) -> str:
        """Return the word that the command line and a run folder know it by."""


Part = TypeVar("Part", bound=Named)


@dataclass(frozen=True, eq=False)
class Parts(Generic[Part]):
    """Parts of one kind, each an instance of one of `types`: those `built_in`, and those of the entry point group `group`.

    `rule` begins the error message for a name or an object that is none, e.g. "A sensitivity must be a known proxy".
    """

    rule: str
    group: str
    types: tuple[type, ...]
    built_in: Mapping[str, Part]
    error: type[UserError] = UserError
    handed: dict[str, Part] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """All names, the built-in ones first."""
        return tuple(dict.fromkeys((*self.built_in, *(entry.name for entry in _declared(self.group)), *self.handed)))

    def named(self, name: str) -> Part:
        """Return the part of that name.

        Raises:
            UserError: there is none.
            LibraryError: two packages declare it, or the one that does cannot be loaded or declares another kind of object.
        """
        if name in self.handed:
            return self.handed[name]
        entries = [entry for entry in _declared(self.group) if entry.name == name]
        if len(entries) + (name in self.built_in) > 1:
            packages = " and ".join((*(["bitwright"] if name in self.built_in else []), *map(_package, entries)))
            raise LibraryError(f"A name of {self.group} must belong to one package; '{name}' is declared by {packages}: uninstall one.")
        if name in self.built_in:
            return self.built_in[name]
        if entries:
            return self._loaded(entries[0])
        close = get_close_matches(name.lower(), self.names, n=1)
        way_out = f"did you mean {close[0]}?" if close else f"choose from {', '.join(self.names)}."
        raise self.error(f"{self.rule}; '{name}' is not: {way_out}")

    def name_of(self, part: str | Part) -> str:
        """Return the name of a part. An object is known by its name for the rest of the process, in place of another object's or package's.

        Raises:
            UserError: an object that is no part of this kind, or has the name of a built-in one.
        """
        if isinstance(part, str):
            return part
        self.require(part)
        if self.built_in.get(part.name, part) is not part:
            raise self.error(f"{self.rule} with a name of its own; '{part.name}' is a built-in one: give yours another name.")
        if part.name not in self.built_in:
            self.handed[part.name] = part
        return part.name

    def require(self, part: object) -> None:
        """Check that an object is a part of this kind.

        Raises:
            UserError: it is not.
        """
        if not isinstance(part, self.types):
            raise self.error(f"{self.rule}, given as a {self._kinds}; this is a {type(part).__name__}: see docs/extending.md for a complete one.")

    def origin(self, name: str) -> str:
        """Return the package that a part comes from and its version, empty for a built-in one."""
        if name in self.handed:
            return "an object of the program"
        return next((_package(entry) for entry in _declared(self.group) if entry.name == name), "")

    @property
    def _kinds(self) -> str:
        return " or ".join(kind.__name__ for kind in self.types)

    def _loaded(self, entry: EntryPoint) -> Part:
        try:
            part: Any = entry.load()
        except Exception as error:  # whatever the package does when it is imported
            raise LibraryError(
                f"A part of {self.group} must be importable; '{entry.name}' of {_package(entry)} is not, since {entry.value} fails with "
                f"{type(error).__name__} ({' '.join(str(error).split())}): update or uninstall the package."
            ) from error
        is_one = isinstance(part, self.types)
        if not is_one or part.name != entry.name:
            found = f"'{part.name}'" if is_one else type(part).__name__
            raise LibraryError(
                f"A part of {self.group} must be a {self._kinds} of the name that it is declared by; '{entry.name}' of {_package(entry)} is a "
                f"{found}: tell its authors, or uninstall the package."
            )
        loaded: Part = part
        return loaded


class PartField(Generic[Part]):
    """Field of a dataclass that is given a part or its name, and holds the name."""

    def __init__(self, parts: Parts[Part], default: str) -> None:
        self.parts, self.default = parts, default

    def __set_name__(self, _: type, name: str) -> None:
        self.name = f"_{name}"

    def __get__(self, owner: object, _: type | None = None) -> str:
        """Return the name of the part; of the class, the default."""
        return self.default if owner is None else str(vars(owner)[self.name])

    def __set__(self, owner: object, part: str | Part) -> None:
        """Set the part by its name, or by itself."""
        vars(owner)[self.name] = self.parts.name_of(part)


@cache
def _declared(group: str) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=group), key=lambda entry: (entry.name, _package(entry))))


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
