"""Import optional libraries (the extra `search`) when a strategy that needs one is made."""

import importlib
import importlib.util
import warnings
from types import ModuleType

from bitwright.errors import LibraryError


def extra(name: str) -> ModuleType:
    """Load the library, or a module of it.

    Raises:
        LibraryError: it cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # for a library's own authors, not its users
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
