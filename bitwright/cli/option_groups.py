"""Groups of options that commands share, as dataclasses: a command takes a group as one parameter, and `flattened` shows its fields to typer."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from functools import wraps
from math import inf
from typing import TYPE_CHECKING, Any

import bitwright as bw
from bitwright.cli.options import (
    AsPublished,
    AtMost,
    BudgetText,
    CacheTypes,
    Codec,
    Context,
    Converter,
    DiskLimit,
    Dtype,
    Evaluations,
    Formats,
    Gguf,
    GpusPerWorker,
    Keep,
    MemoryText,
    Method,
    Minutes,
    Model,
    NWorkers,
    Objectives,
    Parallel,
    PriceRows,
    Profile,
    Rare,
    Ray,
    SearchMemory,
    Seed,
    Sensitivity,
    ShipCodec,
    Skip,
    SplitMaxSize,
    Steps,
    StreamModel,
    Target,
    Threads,
    TokenLimit,
    split_names,
)
from bitwright.cli.text_options import Calibration, HeldOut, Imatrix, Length, NCalibration, NHeldOut, TextColumn
from bitwright.errors import BudgetError, UserError, shown

if TYPE_CHECKING:
    from bitwright.pipeline import Cluster, Conditions, Memory, Search
    from bitwright.spaces import Budget

_ONE_LIMIT = "A plan needs one limit; give --budget for the bytes of the file, or --memory and --context for those of a run."


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Model, formats and texts of a run."""

    model: Model
    target: Target = "llama.cpp"
    gguf: Gguf = ""
    converter: Converter = ""
    formats: Formats = ""
    skip: Skip = ""
    keep: Keep = ""
    codec: Codec = ""
    ship_codec: ShipCodec = ""
    steps: Steps = field(default_factory=list)
    calibration: Calibration = field(default_factory=lambda: ["self"])
    text_column: TextColumn = ""
    held_out: HeldOut = ""
    imatrix: Imatrix = ""
    n_calibration: NCalibration = 64
    n_held_out: NHeldOut = 24
    sequence_length: Length = 128
    sensitivity: Sensitivity = "gradient"
    rare: Rare = "floor"
    seed: Seed = 0
    split_max_size: SplitMaxSize = ""
    search_memory: SearchMemory = ""
    stream: StreamModel = False
    threads: Threads = ""
    dtype: Dtype = ""
    price_rows: PriceRows = ""
    disk_limit: DiskLimit = ""

    def settings(self, *, cache_types: str = "f16", structure: str = "") -> "bw.Settings":
        """Return the settings of the run."""
        kinds, method = bw.pipeline.asked_structure(structure)
        return bw.Settings(
            model=bw.pipeline.name_with(self.model, gguf=self.gguf, converter=self.converter),
            target=self.target,
            formats=tuple(name.upper() for name in split_names(self.formats)),
            calibration=",".join(self.calibration),
            held_out=self.held_out,
            imatrix=self.imatrix,
            sensitivity=self.sensitivity,
            n_calibration=self.n_calibration,
            n_held_out=self.n_held_out,
            sequence_length=self.sequence_length,
            seed=self.seed,
            skip=split_names(self.skip) + split_names(self.keep),
            codec=self.codec,
            ship_codec=self.ship_codec,
            steps=tuple(self.steps),
            rare=self.rare,
            cache_types=cache_types,
            text_column=self.text_column,
            split_max_bytes=part_bytes(self.split_max_size),
            search_memory_bytes=n_bytes(self.search_memory, "The memory of a search"),
            stream=self.stream,
            threads=self.threads,
            dtype=self.dtype,
            price_rows=self.price_rows,
            disk_limit_bytes=n_bytes(self.disk_limit, "The space for packed tensors"),
            structure=kinds,
            structure_method=method,
        )


def part_bytes(text: str) -> int:
    """Return the bytes of `2GB`, the largest size of a part of the model; 0 for an empty text; see `n_bytes`."""
    return n_bytes(text, "The size of a part")


def n_bytes(text: str, what: str) -> int:
    """Return the bytes of `2GB`; 0 for an empty text.

    Raises:
        UserError: it is not a number of bytes, 1 or more; the message begins with `what` it is.
    """
    if not text:
        return 0
    try:
        size = bw.parse_budget(text)
        if size.unit != "bpw" and size.size_bytes(0):
            return size.size_bytes(0)
    except BudgetError:
        pass
    raise UserError(f"{what} is a number of bytes with a unit (2GB, 500MiB); '{shown(text)}' is not: write it like one of these.")


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Method, objectives and effort of a search."""

    method: Method = "auto"
    as_published: AsPublished = False
    objectives: Objectives = ""
    evaluations: Evaluations = 16
    tokens: TokenLimit = inf
    minutes: Minutes = inf

    def search(self) -> "Search":
        """Return the search."""
        return bw.pipeline.Search(
            bw.pipeline.method_named(self.method),
            evaluations=self.evaluations,
            tokens=self.tokens,
            seconds=60 * self.minutes,
            objectives=bw.pipeline.named_objectives(self.objectives),
            as_published=self.as_published,
        )


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """Budget of the file, or memory of the running engine."""

    budget: BudgetText = ""
    memory: MemoryText = ""
    context: Context = 0
    parallel: Parallel = 1
    cache_types: CacheTypes = ""

    def limit(self) -> "Budget | Memory | None":
        """Return the limit, None where neither is given.

        Raises:
            UserError: both are given, or cache types without a memory.
        """
        if self.budget and self.memory:
            raise UserError(_ONE_LIMIT)
        if self.cache_types and not self.memory:
            raise UserError(
                f"The types of a cache count in a memory; --cache-types {self.cache_types} says nothing of a file: give --memory and --context."
            )
        if not self.memory:
            return bw.parse_budget(self.budget) if self.budget else None
        types = bw.pipeline.cache_types(self.cache_types or "any")
        return bw.pipeline.Memory(bw.parse_budget(self.memory), self.context, self.parallel, types)


def require_limit(limit: "Budget | Memory | None") -> "Budget | Memory":
    """Return the limit.

    Raises:
        UserError: there is none.
    """
    if limit is None:
        raise UserError(_ONE_LIMIT)
    return limit


def refuse_limit(limit: "Budget | Memory | None") -> None:
    """Refuse a limit beside a ceiling on the divergence.

    Raises:
        UserError: there is one.
    """
    if limit is not None:
        raise UserError("A ceiling on the divergence seeks the smallest file; it takes the place of --budget and --memory: leave them out, or kl=.")


@dataclass(frozen=True, kw_only=True)
class CeilingOptions:
    """Ceilings beside the limit, and the device that they are computed for."""

    at_most: AtMost = ""
    profile: Profile = ""

    def conditions(self) -> "Conditions":
        """Return the ceilings.

        Raises:
            UserError: one of them cannot be read.
        """
        device = bw.pipeline.read_device(self.profile) if self.profile else None
        return bw.pipeline.parse_conditions(split_names(self.at_most), device)


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Cluster whose workers share the work."""

    ray: Ray = ""
    workers: NWorkers = 0
    gpus_per_worker: GpusPerWorker = 0

    def cluster(self) -> "Cluster | None":
        """Return the cluster, None where none is named.

        Raises:
            UserError: the options do not name one.
        """
        return bw.pipeline.cluster_of(self.ray, self.workers, self.gpus_per_worker)


def flattened(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with the fields of its dataclass parameters in their place.

    typer reads options off the signature of a function, and knows no groups of them.
    """
    parameters = inspect.signature(command).parameters.values()
    groups: dict[str, Any] = {parameter.name: parameter.annotation for parameter in parameters if is_dataclass(parameter.annotation)}
    options = [option for parameter in parameters for option in (_options(groups[parameter.name]) if parameter.name in groups else (parameter,))]

    @wraps(command)
    def run(**values: Any) -> None:
        made = {name: group(**{option.name: values.pop(option.name) for option in fields(group)}) for name, group in groups.items()}
        command(**made, **values)

    run.__signature__ = inspect.Signature([option.replace(kind=option.KEYWORD_ONLY) for option in options])  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def _options(group: Any) -> Iterator[inspect.Parameter]:
    for option in fields(group):
        yield inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=_default(option), annotation=option.type)


def _default(option: Field[Any]) -> Any:
    if option.default is not MISSING:
        return option.default
    return option.default_factory() if option.default_factory is not MISSING else inspect.Parameter.empty
