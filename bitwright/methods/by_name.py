"""Search methods by name: the default, the published ones and the baselines, each declared in a file of its own."""

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
    """Return the method of a name.

    Raises:
        UserError: there is no method of that name.
    """
    known = {method.name: method for method in METHODS}
    if name not in known:
        close = get_close_matches(name.lower(), known, n=1)
        way_out = f"did you mean {close[0]}?" if close else f"choose from {', '.join(known)}."
        raise UserError(f"--method must name a known search method; '{name}' is not one: {way_out}")
    return known[name]
