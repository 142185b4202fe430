"""Request for a search: its method, the effort it may spend, and its objectives."""

from dataclasses import KW_ONLY, dataclass
from math import inf

from bitwright.errors import ObjectiveError
from bitwright.methods import AUTO, METHOD_PARTS, Method
from bitwright.objectives import OBJECTIVE_PARTS, CostObjective, NamedObjective, parse_objectives
from bitwright.ranges import EVALUATIONS, SECONDS, TOKENS
from bitwright.search import require_extra


@dataclass(frozen=True)
class Search:
    """Search method, its effort and its objectives.

    The effort ends with so many choices measured (`evaluations`), `tokens` read in forward and backward passes, or `seconds`; `inf` sets no limit.
    The first of several `objectives` is minimised and the others are reported; without any, it is the method's own. Size always counts and need not
    be among them; other costs are computed for the candidates. `as_published` ships the method's own best plan even if another candidate measures
    better, and computes nothing that the method does not need.

    Raises:
        UserError: the method is not a `Method`, an objective is not an objective, or a limit is below zero or not a number.
        LibraryError: the method needs a library that is not installed.
    """

    method: Method
    _: KW_ONLY
    evaluations: float = inf
    tokens: float = inf
    seconds: float = inf
    objectives: tuple[NamedObjective, ...] = ()
    as_published: bool = False

    def __post_init__(self) -> None:
        METHOD_PARTS.require(self.method)
        EVALUATIONS.require(self.evaluations)
        TOKENS.require(self.tokens)
        SECONDS.require(self.seconds)
        for objective in self.objectives:
            OBJECTIVE_PARTS.require(objective)
        for library in self.method.libraries:
            require_extra(library)


DEFAULT = Search(AUTO, evaluations=16)


def named_objectives(text: str) -> tuple[NamedObjective, ...]:
    """Parse the objectives named in `text`; empty text names none.

    Raises:
        UserError: a word is unknown or its objective cannot be used, or there are only costs, which need no search.
    """
    named = parse_objectives(text) if text.strip() else ()
    if named and all(isinstance(objective, CostObjective) for objective in named):
        raise ObjectiveError(
            f"A search needs an objective beside costs, which are known without measuring; '{text}' names none: add one, such as kl."
        )
    return named
