"""Libraries that only some strategies need: the optional extra `search`, loaded when such a strategy is made."""

import importlib
import warnings
from types import ModuleType

from bitwright.errors import LibraryError


def extra(name: str) -> ModuleType:
    """The library, or a module of it.

    Raises:
        LibraryError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # what a library's own authors should hear, not those who choose a strategy
            return importlib.import_module(name)
    except ImportError as error:
        raise LibraryError(
            f"This strategy needs {name.split('.')[0]}, which cannot be imported ({error}): run `pip install 'bitwright[search]'`, or choose another."
        ) from error
