"""Run several strategies one after the other: the front of a method that searches one budget at a time."""

from collections.abc import Iterable

from bitwright.search.strategies.strategy import Question, Strategy, Trials


class SequentialStrategy(Strategy):
    """Sequence of strategies: asks what the first asks until it has finished, then the second, and so on.

    Raises:
        ValueError: `strategies` is empty.
    """

    def __init__(self, strategies: Iterable[Strategy]) -> None:
        self._waiting = list(strategies)
        if not self._waiting:
            raise ValueError("at least one strategy is needed")

    def ask(self) -> Question:
        """Return the question of the first strategy that is not finished."""
        while len(self._waiting) > 1 and self._waiting[0].ask().is_last:
            del self._waiting[0]
        return self._waiting[0].ask()

    def tell(self, trials: Trials) -> None:
        """Tell the strategy that asked."""
        self._waiting[0].tell(trials)
