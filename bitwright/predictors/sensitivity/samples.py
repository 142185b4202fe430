"""Check that a predictor has enough measured choices before it is fitted."""

from bitwright.errors import UserError
from bitwright.spaces import Choices


def require_samples(choices: Choices, needed: int, predictor: str) -> None:
    """Check that there are at least `needed` `choices` `(n, n_units)`; `predictor` is the subject of the error message.

    Raises:
        UserError: there are fewer.
    """
    if len(choices) < needed:
        raise UserError(
            f"{predictor} must have at least {needed} measured choices; there are {len(choices)}: "
            "measure more, or choose a predictor that starts from a table, such as ridge."
        )
