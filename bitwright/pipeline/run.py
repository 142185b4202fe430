"""Run folder: settings, sensitivities and measurements of a search, readable without the model."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitwright.engines import target_named
from bitwright.errors import RunError
from bitwright.objectives import NO_ROUTING, Measurement, Routing, Store, Tokens, quality_of, readable_store, routing_from, routing_key
from bitwright.pipeline.settings import Settings, settings_from_json
from bitwright.predictors import Scale, fit_scale, summed
from bitwright.spaces import Choice, Space, Tensor, Unit, weight_space

#: the key of the text and objective that the run's searches measured
SEARCH_TEXT = "search text"
#: the array that a run has once every pair is quantized
PACKED = "weighted errors"
#: the key of the SHA-256 of the importance matrix that a run quantizes with
IMATRIX_DIGEST = "importance matrix"
#: the key of how the weights of the source are stored, if not as floats
QUANTIZED = "source weights"
#: prefix of the keys of search histories
HISTORY_PREFIX = "course/"
DATABASE, LEVELS, REORDERED, SHIPPED, CODES, STEPS = "run.sqlite", "levels", "levels-reordered", "shipped", "codes", "steps"
IMATRIX, PLAN, REPORT = "imatrix.gguf", "plan.json", "report.html"
#: file of the scores of feed-forward channels, beside those of steps
CHANNEL_SCORES = "channel-scores.safetensors"


@dataclass(frozen=True, eq=False)
class Run:
    """Settings, search space, sensitivity tables and measurements of one run folder.

    `space` offers the pairs worth searching; `tried` `(n_units, n_formats)` marks every quantized pair, all of which uniform allocations may use.
    `table` `(n_units, n_formats)` has the sensitivities in the proxy's units, for every tried pair; `second_table` is that of a second proxy, whose
    optimum is measured too. `original_bytes` is the size of the file with every tensor as it is stored in the source.
    """

    folder: Path
    store: Store
    settings: Settings
    space: Space
    tried: NDArray[np.bool_]
    table: NDArray[np.float64]
    second_table: NDArray[np.float64]
    original_bytes: int

    @property
    def everything(self) -> Space:
        """The space with every quantized pair."""
        return replace(self.space, offered=self.tried)

    @property
    def of_weights(self) -> "Run":
        """The run without the units of the KV cache."""
        space = weight_space(self.space)
        n = len(space.units)
        return replace(self, space=space, tried=self.tried[:n], table=self.table[:n], second_table=self.second_table[:n])

    @property
    def measurements(self) -> dict[tuple[int, ...], Measurement]:
        """All measurements on held-out text so far, by choice."""
        return self._measured("")

    @property
    def shipped(self) -> dict[tuple[int, ...], Measurement]:
        """All measurements with the rounding and steps that ship, by choice; empty if those are the search's own."""
        return self._measured(self.settings.shipping) if self.settings.remeasures else {}

    def _measured(self, rounding: str) -> dict[tuple[int, ...], Measurement]:
        return quality_of(self.store, self.held_out, rounding) if self.store.has_array("held-out tokens") else {}

    @property
    def held_out(self) -> Tokens:
        """The held-out text."""
        return Tokens(self.store.array("held-out tokens").astype(np.int64), self.store.text("held-out text"))

    def evaluated(self) -> dict[tuple[int, ...], float]:
        """Return the mean first objective of every choice that searches measured on all of the calibration text."""
        found = self.store.all_measured(*json.loads(self.store.text(SEARCH_TEXT))) if self.store.has_text(SEARCH_TEXT) else {}
        n_sequences = max((len(values) for values, _ in found.values()), default=0)
        return {choice: float(values[:, 0].mean()) for choice, (values, _) in found.items() if len(values) == n_sequences}

    @property
    def routing(self) -> Routing:
        """Routing of the calibration text to experts."""
        key = routing_key(self.store.array("calibration tokens").astype(np.int64))
        return routing_from(self.store.array(key)) if self.store.has_array(key) else NO_ROUTING

    @property
    def scale(self) -> Scale:
        """Factor from the table's units to nats, fitted to all measurements so far."""
        measured = list(self.measurements.values())
        return fit_scale([self.summed(np.array(m.choice)) for m in measured], [m.nats_per_token for m in measured])

    def summed(self, choice: Choice) -> float:
        """Return the table's sum over a choice, in the table's units."""
        return summed(self.table, choice)


def text_table_key(text: int) -> str:
    """Return the key of the table `(n_units, n_formats)` of one of the mixed calibration texts alone."""
    return f"table of text {text}"


def chance_table_key(text: int) -> str:
    """Return the key of the table of as many sequences drawn at random from all texts."""
    return f"table by chance {text}"


def open_run(folder: Path) -> Run:
    """Open the run folder of a finished search.

    Raises:
        RunError: the folder has no run, or the search has not finished.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise RunError(f"A run folder must hold a {DATABASE}; {folder} does not: make one with `bitwright search MODEL --out {folder}`.")
    store = readable_store(path)
    return stored_run(folder, store, settings_from_json(store.text("settings")))


def store_prices(run: Run) -> None:
    """Store the space and tables of a run in its folder."""
    store, space = run.store, run.space
    units = [asdict(unit) for unit in space.units]
    fixed = {"fixed_bits": space.fixed_bits, "n_weights": space.n_weights, "original_bytes": run.original_bytes}
    store.put_text("prices", json.dumps({"target": run.settings.target, "units": units, **fixed}))
    store.put_array("size_bits", space.size_bits)
    store.put_array("offered", space.offered)
    store.put_array("tried", run.tried)
    store.put_array("second table", run.second_table)
    store.put_array("table", run.table)  # last: if it is there, everything is


def stored_run(folder: Path, store: Store, settings: Settings) -> Run:
    """Return the run whose space and tables are in `store`.

    Raises:
        RunError: the search was stopped before it stored them.
    """
    record = json.loads(store.text("prices"))
    units = tuple(Unit(u["name"], u["layer"], u["kind"], tuple(_tensor(t) for t in u["tensors"]), u.get("expert", -1)) for u in record["units"])
    space = Space(
        units=units,
        formats=target_named(record["target"]).with_made(settings.menu).formats,
        size_bits=store.array("size_bits").astype(np.int64),
        offered=store.array("offered").astype(np.bool_),
        fixed_bits=record["fixed_bits"],
        n_weights=record["n_weights"],
    )
    return Run(
        folder,
        store,
        settings,
        space,
        tried=store.array("tried").astype(np.bool_),
        table=store.array("table").astype(np.float64),
        second_table=store.array("second table").astype(np.float64),
        original_bytes=record["original_bytes"],
    )


def _tensor(fields: dict[str, Any]) -> Tensor:
    return Tensor(**{**fields, "shape": tuple(fields["shape"])})
