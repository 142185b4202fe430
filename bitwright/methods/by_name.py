"""Search methods by name: those of this project, the published ones and the baselines, each declared in a file of its own."""

from bitwright.methods.baselines import BASELINES
from bitwright.methods.differentiable import RELAXED
from bitwright.methods.method import AUTO, Method
from bitwright.methods.published_experts import OF_EXPERTS
from bitwright.methods.published_pruning import BY_PRUNING
from bitwright.methods.published_searches import BY_SEARCHES
from bitwright.methods.published_tables import BY_TABLES
from bitwright.plugins import Parts

PUBLISHED: tuple[Method, ...] = (*BY_TABLES, *BY_PRUNING, *OF_EXPERTS, *BY_SEARCHES)
METHODS: tuple[Method, ...] = (AUTO, RELAXED, *PUBLISHED, *BASELINES)
#: the same by name, with those of other packages
METHOD_PARTS = Parts("A search method must be a known one", "bitwright.methods", (Method,), {method.name: method for method in METHODS})


def method_named(name: str) -> Method:
    """Return the method of that name.

    Raises:
        UserError: there is none.
        LibraryError: another package declares it, and it cannot be loaded.
    """
    return METHOD_PARTS.named(name)
