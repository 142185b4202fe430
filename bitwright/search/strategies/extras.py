"""Libraries that only some strategies need: the optional extra `search`, loaded when such a strategy is made."""

import importlib
import importlib.util
import warnings
from types import ModuleType

from bitwright.errors import LibraryError


def extra(name: str) -> ModuleType:
    """Load the library, or a module of it.

    Raises:
        LibraryError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what a library's own authors should hear, not those who choose a strategy
            return importlib.import_module(name)
    except ImportError as error:
        raise LibraryError(_sentence(name, f" ({error})")) from error


def require_extra(name: str) -> None:
    """Refuse to go on without the library of that name, without loading it.

    Raises:
        LibraryError: it is not installed.
    """
    try:
        found = importlib.util.find_spec(name)
    except ValueError:  # a module that says of itself that it has no origin
        found = None
    if found is None:
        raise LibraryError(_sentence(name, ""))


def _sentence(name: str, reason: str) -> str:
    return f"This strategy needs {name.split('.')[0]}, which cannot be imported{reason}: run `pip install 'bitwright[search]'`, or choose another."
