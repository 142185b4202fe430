"""Adapt a strategy on groups of tied units to the space of units."""

from dataclasses import replace

from bitwright.search.strategies.strategy import Question, Strategy, Trials
from bitwright.spaces import Tie


class Tied(Strategy):
    """Adapter: `inner` works on the coarse space of `tie`; its questions and trials are translated."""

    def __init__(self, inner: Strategy, tie: Tie) -> None:
        self._inner, self._tie = inner, tie

    def ask(self) -> Question:
        """Return the inner strategy's question with its choices expanded to all units."""
        asked = self._inner.ask()
        return replace(asked, choices=self._tie.expanded(asked.choices), against=self._tie.expanded(asked.against))

    def tell(self, trials: Trials) -> None:
        """Tell the inner strategy, with choices reduced to one unit for each tie."""
        self._inner.tell(replace(trials, choices=self._tie.reduced(trials.choices)))
