"""Import optional libraries (the extra `search`) when a strategy that needs one is made."""

import importlib
import warnings
from types import ModuleType

from bitwright.errors import LibraryError


def extra(name: str) -> ModuleType:
    """Import a library, or a module of it, by name.

    Raises:
        LibraryError: it cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # for a library's own authors, not its users
            return importlib.import_module(name)
    except ImportError as error:
        raise LibraryError(
            f"This strategy needs {name.split('.')[0]}, which cannot be imported ({error}): run `pip install 'bitwright[search]'`, or choose another."
        ) from error
