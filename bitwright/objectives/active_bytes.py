"""What a decode step reads: of a mixture only the experts that the token is sent to, which is what its speed hangs on.

    dense tensors whole + Σ over routed experts of their bytes · how often each is chosen

Frequencies are those of a text (`routing.py`). Where experts are dropped, those that are left in the layer share all of its choices in proportion.
What is no tensor, and the rows of the embedding that are not looked up, are counted too: it is an upper bound that differs from the truth by the same
bytes for every choice in the same formats.
"""

import numpy as np
from numpy.typing import NDArray

from bitwright.objectives.routing import Routing
from bitwright.spaces import DROP, Choice, Space


def active_bytes(space: Space, choice: Choice, routing: Routing) -> float:
    """Bytes that the step of one token reads on average, for a choice `(n_units,)` of a space in which experts are units."""
    bits = space.size_bits[np.arange(len(choice)), choice].astype(np.float64)
    return (space.fixed_bits + float((bits * _shares_read(space, choice, routing)).sum())) / 8


def _shares_read(space: Space, choice: Choice, routing: Routing) -> NDArray[np.float64]:
    """How often each unit is read by a token `(n_units,)`: 1 for what is no single expert."""
    gone = {(unit.layer, unit.expert) for unit, f in zip(space.units, choice, strict=True) if space.formats[f] == DROP}
    left = np.array([(layer, expert) not in gone for layer, expert in zip(routing.layer.tolist(), routing.expert.tolist(), strict=True)])
    shares = routing.shares(np.where(left, routing.n_chosen, 0)) * routing.n_at_once
    return np.array([shares[routing.row_of(unit.layer, unit.expert)] if unit.expert >= 0 else 1.0 for unit in space.units])
