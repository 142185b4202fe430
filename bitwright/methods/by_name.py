"""The methods by name: one line each, and a declaration in a file of its own where a published one needs more."""

from difflib import get_close_matches

from bitwright.errors import UserError
from bitwright.methods.method import AUTO, Method
from bitwright.methods.published_experts import OF_EXPERTS
from bitwright.methods.published_searches import BY_SEARCHES
from bitwright.methods.published_tables import BY_TABLES

METHODS: tuple[Method, ...] = (AUTO, *BY_TABLES, *OF_EXPERTS, *BY_SEARCHES)


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        UserError: there is none.
    """
    known = {method.name: method for method in METHODS}
    if name not in known:
        close = get_close_matches(name.lower(), known, n=1)
        way_out = f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}."
        raise UserError(f"A method of search must be one that is known; '{name}' is not: {way_out}")
    return known[name]
