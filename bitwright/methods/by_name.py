"""The methods by name: the default, the published ones, and the baselines to hold them against; one line each, declared in files of their own."""

from difflib import get_close_matches

from bitwright.errors import UserError
from bitwright.methods.baselines import BASELINES
from bitwright.methods.method import AUTO, Method
from bitwright.methods.published_experts import OF_EXPERTS
from bitwright.methods.published_searches import BY_SEARCHES
from bitwright.methods.published_tables import BY_TABLES

PUBLISHED: tuple[Method, ...] = (*BY_TABLES, *OF_EXPERTS, *BY_SEARCHES)
METHODS: tuple[Method, ...] = (AUTO, *PUBLISHED, *BASELINES)


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
