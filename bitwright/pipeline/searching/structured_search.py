"""Search of structure and formats together, from the best choice of formats alone.

1. Measure what taking each part away costs, one at a time, with all other weights as in that choice (the operating point): there, not at the
   original, is where taking away competes with rounding. In deep models only the parts that change the hidden states the least (`sieved_parts`).
2. Solve structure and formats as one knapsack of composite options (`structured_options`). Losses of parts that are taken away do not add up (the
   counterexample of EvoPress, Sieberling et al., 2024), so it is solved with several multiples of their prices, and each solution is measured.
   Where decoding has a ceiling, a price on its seconds keeps it (`solve_priced`).
   From the best of them the search goes on to neighbours that measure better (`structure_exchanges`).
   Or a published method proposes structures (`methods.STRUCTURE_METHODS`), and the formats of each are solved for.
3. The best by calibration text are candidates, as they are and with what is left refitted to the original (`compensation`), and compete with formats
   alone on held-out text.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitwright.compress import EXPANDED_BYTES, Weights, chosen_weights, kept_energies, last_matrices, narrowed_weights, swapping, whole_structure
from bitwright.errors import BudgetError
from bitwright.methods import SeenModel, structure_method
from bitwright.objectives import QUALITY, Evaluator, KullbackLeibler, Measurement, Tokens
from bitwright.pipeline.loaded_run import LoadedRun, referenced, timed
from bitwright.pipeline.planning.structured_seconds import CountedSeconds
from bitwright.pipeline.planning.structured_size import CountedBytes
from bitwright.pipeline.run import Run
from bitwright.pipeline.searching.expert_prices import ExpertPrices, expert_prices
from bitwright.pipeline.searching.kept_model import kept_on
from bitwright.pipeline.searching.sieved_parts import ALL_PRICED, Tried, all_blocks, least_influential
from bitwright.pipeline.searching.structure_exchanges import climbed, neighbouring_prices
from bitwright.pipeline.searching.structured_options import BlockOptions, StructurePrices, expert_numbers, group_numbers, part_weights, widths
from bitwright.predictors import Subject, block_cosines, expert_saliencies, part_influences, span_distances
from bitwright.search import Priced, solve_composite, solve_priced
from bitwright.spaces import Choice, Structure, StructureKind, chosen_cache, weight_space, without_cache

_AWAY = "parts taken away"  # of the keys of what is measured
_DEARER = (1.0, 2.0, 4.0, 8.0)
_PROBE_TOKENS, _FEWEST_PROBES = 1024, 4  # tokens and sequences by which taking away is priced
_RANKED_TOKENS = 4096  # tokens by which solutions are compared
_SHARES = (0.75, 0.5)  # of the channels, at which their prices are measured
_FINALISTS = 2
_NEIGHBOURS = 16  # that are measured at most
_ROUNDS = 4
_LEAST = 1e-9


@dataclass(frozen=True, eq=False)
class StructuredChoice:
    """Formats `(n_units,)` of the whole tensors and the structure that is kept of them, with the bytes of the file, and whether what is left has the
    weights of a compensation. `seconds` are those of a decode step, None where they have no ceiling.
    """

    choice: Choice
    structure: Structure
    size_bytes: int
    is_compensated: bool = False
    seconds: float | None = None

    @property
    def key(self) -> Choice:
        """The choice, the structure and whether it is compensated in one row; of experts their number in each block and their indices."""
        kept = self.structure
        experts = [index for of_block in kept.experts for index in (len(of_block), *of_block)]
        return np.concatenate([self.choice, kept.head_groups, kept.channels, experts, [self.is_compensated]]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Solution:
    """Solution of the knapsack for the options of `blocks`, with the prices of taking away times `dearer`."""

    blocks: BlockOptions
    dearer: float
    made: StructuredChoice


class Refits(Protocol):
    """Refitted matrices of what a structure leaves."""

    def refit(self, choice: Choice, kept: Structure) -> bool:
        """Refit what is left of a choice, and return whether there is anything to refit; the model has its original weights."""

    def weights(self, choice: Choice, kept: Structure) -> Weights:
        """Return the refitted matrices in their formats, by name."""


@dataclass(frozen=True, eq=False)
class StructuredSearch:
    """Search of a run for structure within `counted` bytes and, where decoding has a ceiling, `seconds`, from the choice `start` of formats alone.
    `refits` refits what is left.
    """

    loaded: LoadedRun
    run: Run
    counted: CountedBytes
    start: Choice
    refits: Refits
    seconds: CountedSeconds | None = None

    @property
    def kinds(self) -> Sequence[StructureKind]:
        """Kinds of structure that are offered."""
        return self.loaded.structure

    def candidates(self) -> list[StructuredChoice]:
        """Return the best structures with their formats by calibration text, the best first; none where taking nothing away is best throughout."""
        loaded, whole = self.loaded, whole_structure(self.loaded.model.source)
        with timed(loaded.store, "structure"):
            saliencies = expert_saliencies(self._subject) if "experts" in self.kinds else None
            tried = self._tried(whole.n_layers)
            with self._evaluating(loaded.texts.calibration, stage="structure") as evaluator:
                proposed = self._proposed(evaluator, whole)
                blocks = self._unpriced(evaluator, whole)
                if proposed:
                    return self._ranked(evaluator, [made for kept in proposed for made in self._solved(blocks.given(kept), 1.0)])
                prices = self._prices(evaluator, blocks, tried)
                prices = prices if saliencies is None else self._with_experts(evaluator, prices, whole, saliencies)
                priced = replace(blocks, prices=prices)
                numbers = (0, *priced.prices.experts[0]) if priced.prices.experts else (0,)
                offered = [(replace(priced, n_experts=n), dearer) for n in numbers for dearer in _DEARER]
                solved = [Solution(blocks, dearer, made) for blocks, dearer in offered for made in self._solved(blocks, dearer)]
                return self._ranked(evaluator, [*(one.made for one in solved), *self._neighbours(evaluator, solved)])

    def _tried(self, n_blocks: int) -> Tried:
        """Return the blocks of which taking away is priced, by kind. The model must have its original weights."""
        is_sieved = n_blocks > ALL_PRICED and not self.loaded.settings.structure_method
        return least_influential(part_influences(self._subject)) if is_sieved else all_blocks(n_blocks)

    def _neighbours(self, evaluator: Evaluator, solved: Sequence[Solution]) -> Iterator[StructuredChoice]:
        """Yield the neighbours that were measured on the calibration text, from the best of some solutions that take something away on."""
        whole, n = whole_structure(self.loaded.model.source), self._sequences(evaluator, _RANKED_TOKENS)

        def nats(one: Solution) -> float:
            return self._nats(evaluator, one.made.key, n)

        def around(one: Solution) -> Iterator[Solution]:
            for prices in neighbouring_prices(one.blocks.prices, one.made.structure, whole):
                blocks = replace(one.blocks, prices=prices)
                found = (Solution(blocks, one.dearer, made) for made in self._solved(blocks, one.dearer))
                yield from (other for other in found if other.made.structure != whole)

        taking = [one for one in solved if one.made.structure != whole]
        if taking:
            start = min(taking, key=nats)
            found = climbed(start, around, loss=nats, key=lambda one: tuple(one.made.key.tolist()), at_most=_NEIGHBOURS)
            yield from (one.made for one in found)

    def _ranked(self, evaluator: Evaluator, made: Sequence[StructuredChoice]) -> list[StructuredChoice]:
        """Return the best of some choices that take something away, by calibration text."""
        whole, n = whole_structure(self.loaded.model.source), self._sequences(evaluator, _RANKED_TOKENS)
        different = {tuple(one.key.tolist()): one for one in made if one.structure != whole}
        return sorted(different.values(), key=lambda one: (self._nats(evaluator, one.key, n), one.size_bytes))[:_FINALISTS]

    def compensated(self, candidates: Sequence[StructuredChoice]) -> list[StructuredChoice]:
        """Return the candidates with what is left refitted to the original, where there is anything to refit."""
        return [replace(made, is_compensated=True) for made in candidates if self.refits.refit(made.choice, made.structure)]

    def measured(self, candidates: Sequence[StructuredChoice]) -> list[Measurement]:
        """Return the quality of candidates on held-out text."""
        with self._evaluating(self.loaded.texts.held_out, stage="candidates") as evaluator:
            return [evaluator(made.key, evaluator.n_sequences) for made in candidates]

    @contextmanager
    def _evaluating(self, tokens: Tokens, *, stage: str) -> Iterator[Evaluator]:
        loaded = self.loaded
        objectives = QUALITY if stage == "candidates" else (KullbackLeibler(),)
        with referenced(loaded, tokens) as reference, swapping(loaded.model, expanded_bytes=EXPANDED_BYTES) as swapper:

            def load(key: Choice) -> None:
                choice, structure = self._split(key)
                weights = chosen_weights(loaded.model, loaded.levels, self.run.everything, choice)
                if key[-1]:
                    weights = {**weights, **self.refits.weights(choice, structure)}
                swapper.load(narrowed_weights(loaded.model, weights, structure), chosen_cache(self.run.space, choice))

            yield Evaluator(loaded.model, load, reference=reference, objectives=objectives, store=loaded.store, rounding=_AWAY, stage=stage)

    def _split(self, key: Choice) -> tuple[Choice, Structure]:
        n = len(self.run.space.units)
        n_layers = whole_structure(self.loaded.model.source).n_layers
        groups, channels, rest = (part.tolist() for part in np.split(key[n:-1], [n_layers, 2 * n_layers]))
        experts = list[tuple[int, ...]]()
        while rest:
            experts.append(tuple(rest[1 : 1 + rest[0]]))
            rest = rest[1 + rest[0] :]
        return key[:n], Structure(tuple(groups), tuple(channels), tuple(experts))

    def _sequences(self, evaluator: Evaluator, n_tokens: int) -> int:
        length = int(self.loaded.texts.calibration.ids.shape[1])
        return min(evaluator.n_sequences, max(_FEWEST_PROBES, -(-n_tokens // length)))

    def _nats(self, evaluator: Evaluator, key: Choice, n_sequences: int) -> float:
        return evaluator(key, n_sequences).nats_per_token

    @property
    def _subject(self) -> Subject:
        loaded = self.loaded
        return Subject(loaded.model, loaded.levels, self.run.space, loaded.texts.calibration, loaded.settings.seed, loaded.store, loaded.progress)

    def _proposed(self, evaluator: Evaluator, whole: Structure) -> list[Structure]:
        """Return the structures of the method that is asked for, none where parts are priced. The model must have its original weights; a method goes
        by them or by divergences from them.
        """
        method = structure_method(self.loaded.settings.structure_method)
        if method is None:
            return []
        loaded, subject = self.loaded, self._subject
        seen = SeenModel(
            cosines=block_cosines(subject),
            distances=span_distances(subject),
            kept=kept_on(loaded.model, loaded.texts.calibration),
            divergence=lambda kept, n: self._nats(evaluator, StructuredChoice(self.start, kept, 0).key, self._sequences(evaluator, n)),
            part_weights=part_weights(loaded.model.tensors, whole.n_layers),
            seed=loaded.settings.seed,
            router_scores=self._router_scores(whole),
            n_experts_used=loaded.model.source.n_experts_used,
            channel_scores=self._channel_scores(whole),
        )
        return list(method.proposed(seen, whole, widths))

    def _channel_scores(self, whole: Structure) -> tuple[NDArray[np.float64], ...]:
        """Return the scores of each block's channels in their order `(n_channels,)`, none where the method has none."""
        loaded = self.loaded
        downs = [last_matrices(loaded.model.tensors)[layer, "ffn_down"][0].name for layer in range(whole.n_layers)]
        return tuple(loaded.channel_scores[down][0][loaded.order.columns[down]].astype(np.float64) for down in downs if loaded.channel_scores)

    def _router_scores(self, whole: Structure) -> NDArray[np.float64]:
        """Return the routers' probabilities of the experts `(n_blocks, n_experts)`, summed over the tokens that are sent to them."""
        scores, routing = np.zeros((whole.n_layers, max((len(of_block) for of_block in whole.experts), default=0))), self.loaded.routing
        scores[routing.layer, routing.expert] = routing.probability
        return scores

    def _unpriced(self, evaluator: Evaluator, whole: Structure) -> BlockOptions:
        """Return the maker of options that takes nothing away, with the losses of formats scaled to what is measured at the start."""
        loaded, run = self.loaded, self.run
        base = self._nats(evaluator, StructuredChoice(self.start, whole, 0).key, self._sequences(evaluator, _PROBE_TOKENS))
        shares = tuple(self._shares(layer, n) for layer, n in enumerate(whole.channels))
        weights, space = run.of_weights, weight_space(run.space)
        summed = weights.summed(without_cache(run.space, self.start))
        decided = {tensor.name for unit in space.units for tensor in unit.tensors}
        return BlockOptions(
            engine=loaded.engine,
            space=space,
            table=weights.table * (base / summed if summed > 0 else 1.0),
            fixed=tuple(tensor for tensor in loaded.model.tensors if tensor.name not in decided),
            whole=whole,
            prices=StructurePrices.of_one(whole, shares),
            cache_bits=self.counted.cache_bits_of_a_group(chosen_cache(run.space, self.start)),
            joined=loaded.engine.joined_roles(loaded.model.source, self.kinds),
            seconds=self.seconds,
        )

    def _shares(self, layer: int, n_channels: int) -> NDArray[np.float64]:
        """Return the shares of energy of a block's first channels; where none is taken away, only that of all of them matters."""
        if "channels" not in self.kinds:
            return np.linspace(0, 1, n_channels + 1)
        return kept_energies(self.loaded.model.source, self.loaded.levels.importance, layer)

    def _prices(self, evaluator: Evaluator, blocks: BlockOptions, tried: Tried) -> StructurePrices:
        """Return the prices of taking away: the nats/token that less of a block adds at the start, in the blocks that are `tried` for a kind."""
        whole, n = blocks.whole, self._sequences(evaluator, _PROBE_TOKENS)
        groups: list[dict[int, float]] = [{full: 0.0} for full in whole.head_groups]
        channels: list[dict[int, float]] = [{full: 0.0} for full in whole.channels]
        gone: dict[int, float] = {}

        def nats(layer: int, of_groups: int, of_channels: int) -> float:
            kept = Structure(_with(whole.head_groups, layer, of_groups), _with(whole.channels, layer, of_channels), whole.experts)
            return self._nats(evaluator, StructuredChoice(self.start, kept.without(kept.gone), 0).key, n)

        with self.loaded.progress.stage("Pricing parts that may be taken away", whole.n_layers) as advance:
            base = nats(0, whole.head_groups[0], whole.channels[0])
            for i, full in enumerate(zip(whole.head_groups, whole.channels, strict=True)):
                kinds = [kind for kind in self.kinds if i in tried.get(kind, ())]
                for kept in group_numbers(full[0], kinds if i else [kind for kind in kinds if kind != "attention"])[1:]:
                    groups[i][kept] = max(nats(i, kept, full[1]) - base, _LEAST)
                for kept in _probed(full[1]) if "channels" in kinds else ():
                    channels[i][kept] = max(nats(i, full[0], kept) - base, _LEAST)
                if "layers" in kinds and i:  # the first block keeps its heads, from which the engine takes their size
                    gone[i] = max(nats(i, 0, 0) - base, _LEAST)
                advance(1)
        return StructurePrices(tuple(groups), tuple(channels), gone, blocks.prices.shares)

    def _with_experts(self, evaluator: Evaluator, prices: StructurePrices, whole: Structure, saliencies: NDArray[np.float64]) -> StructurePrices:
        """Return the prices with those of keeping fewer experts in a block."""
        n, n_experts = self._sequences(evaluator, _PROBE_TOKENS), len(whole.experts[0])
        numbers = expert_numbers(n_experts, self.loaded.model.source.n_experts_used)[1:]
        base = self._nats(evaluator, StructuredChoice(self.start, whole, 0).key, n)

        def nats(layer: int, experts: Sequence[int]) -> float:
            kept = replace(whole, experts=(*whole.experts[:layer], tuple(experts), *whole.experts[layer + 1 :]))
            return max(self._nats(evaluator, StructuredChoice(self.start, kept, 0).key, n) - base, _LEAST)

        with self.loaded.progress.stage("Pricing experts that may be taken away", whole.n_layers) as advance:
            found = list[ExpertPrices]()
            for layer in range(whole.n_layers):
                found.append(expert_prices(saliencies[layer, :n_experts], numbers, partial(nats, layer)))
                advance(1)
        return replace(prices, experts=tuple(each.nats for each in found), by_worth=tuple(each.by_worth for each in found))

    def _solved(self, blocks: BlockOptions, dearer: float) -> Iterator[StructuredChoice]:
        """Yield the solution with the prices of taking away times `dearer`, if one is within the limits."""
        found = [made for each in blocks.by_spanning() if (made := self._within(each, dearer)) is not None]
        if found:
            yield min(found, key=lambda solved: solved.loss).found

    def _within(self, blocks: BlockOptions, dearer: float) -> Priced[StructuredChoice] | None:
        """Return the solution within the limits, None if none is found."""
        if self.seconds is None:
            return self._at_price(blocks, dearer)
        return solve_priced(lambda price: self._at_price(replace(blocks, second_price=price), dearer), self.seconds.at_most)

    def _at_price(self, blocks: BlockOptions, dearer: float) -> Priced[StructuredChoice] | None:
        """Return the solution within the bytes, at the price that `blocks` have for a second, None if none is found."""
        types = chosen_cache(self.run.space, self.start)
        groups, allowed = blocks.groups(dearer), 8 * self.counted.allowed
        missing = blocks.fixed_bits()
        best: Priced[StructuredChoice] | None = None
        for _ in range(_ROUNDS):
            try:
                found = solve_composite(groups, allowed - missing)
            except BudgetError:
                break
            choice, structure = blocks.chosen(found.picks)
            if structure.trapped or not any(structure.head_groups):
                break
            formats = blocks.space.names(choice)
            counted = 8 * self.counted.of(structure, formats, types)
            missing = max(counted - found.bits, missing if counted > allowed else 0) + (8 if counted > allowed else 0)
            if counted <= allowed:
                size, seconds = self.counted.file(structure, formats), None if self.seconds is None else self.seconds.of(structure, formats)
                cached = self.start[len(blocks.space.units) :]
                if best is not None and best.found.structure == structure and (best.found.choice[: len(choice)] == choice).all():
                    break
                made, taken = StructuredChoice(np.concatenate([choice, cached]), structure, size, seconds=seconds), seconds or 0.0
                best = Priced(made, found.loss - blocks.second_price * (taken - blocks.fixed_seconds()), taken, found.gap)
        return best


def _with(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    return (*values[:place], value, *values[place + 1 :])


def _probed(n_channels: int) -> list[int]:
    """Return the numbers of channels at which their prices are measured: those nearest to `_SHARES` and the fewest."""
    offered = widths(n_channels)[1:]
    nearest = {min(offered, key=lambda n: abs(n - share * n_channels)) for share in _SHARES} if offered else set()
    return sorted(nearest | set(offered[-1:]), reverse=True)
