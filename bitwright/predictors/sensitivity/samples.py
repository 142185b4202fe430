"""How many measured choices a predictor needs, said before it fails."""

from bitwright.errors import UserError
from bitwright.spaces import Choices


def require_samples(choices: Choices, needed: int, predictor: str) -> None:
    """Refuse `choices` `(n, n_units)` that are fewer than `needed`; `predictor` names what needs them, and why where that is not plain.

    Raises:
        UserError: too few.
    """
    if len(choices) < needed:
        raise UserError(
            f"{predictor} must have at least {needed} measured choices; there are {len(choices)}: "
            "measure more, or choose a predictor that begins with a table, such as ridge."
        )
