"""The options that commands share, each declared once."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import bitwright as bw
from bitwright.errors import UserError
from bitwright.ranges import (
    CALIBRATION_SEQUENCES,
    CONTEXT,
    EVALUATIONS,
    HELD_OUT_SEQUENCES,
    ORDERING_SEQUENCES,
    PARALLEL,
    SECONDS,
    SEED,
    SEQUENCE_LENGTH,
    TOKENS,
)

if TYPE_CHECKING:
    from bitwright.pipeline import Conditions, Memory, Search
    from bitwright.spaces import Budget

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A GGUF file, a Hugging Face folder, or a hub name such as Qwen/Qwen3-4B.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN/", help="The folder that `search` or `fit` left.")]
BudgetText = Annotated[str, typer.Option("--budget", help="Size of the finished file: 90MB, 85.8MiB, 0.4GB, or 4.6bpw (bits per weight).")]
MemoryText = Annotated[str, typer.Option("--memory", help="Memory of a whole run, in place of --budget: 4GiB, 900MB. Needs --context.")]
Context = Annotated[int, typer.Option(help=f"Tokens of a sequence that the engine keeps, {CONTEXT}.")]
Parallel = Annotated[int, typer.Option(help=f"Sequences that the engine serves at once, {PARALLEL}.")]
CacheTypes = Annotated[
    str,
    typer.Option(
        help="Types of the cache: one for keys and values, or two, as in q8_0,q4_0; `any` decides them with the weights, as --memory does by itself."
    ),
]
Target = Annotated[str, typer.Option(help="The engine that will load the file.")]
OutFolder = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where everything is kept; an interrupted run goes on from there.")]
Formats = Annotated[str, typer.Option(help="The menu, as in Q4_K,Q5_K,Q6_K. All formats of the target when left out.")]
Keep = Annotated[str, typer.Option(help="Tensors that stay as they are stored, as patterns: token_embd*,output*.")]
Calibration = Annotated[
    list[str],
    typer.Option(
        help="Text to measure sensitivities on: a .txt, .jsonl, .json or .parquet file, a dataset, or `self` (the model writes it). Several are "
        "mixed, by their weights: a.txt:0.7,b.txt:0.3."
    ),
]
TextColumn = Annotated[
    str,
    typer.Option(
        help="Where rows of .jsonl, .json, .parquet and datasets have their text, or messages for the model's chat template. `text`, or else "
        "`messages`, when left out."
    ),
]
HeldOut = Annotated[str, typer.Option(help="Text to judge the result by. A part of the calibration text that is not calibrated on when left out.")]
Imatrix = Annotated[str, typer.Option(help="Your own file of llama.cpp's imatrix tool. Collected from the calibration text when left out.")]
Codec = Annotated[
    str, typer.Option(help="What makes integers of weights: rtn (nearest), clip, hqq, gptq or gptq+clip. The target's usual one when left out.")
]
ShipCodec = Annotated[
    str,
    typer.Option(help="The same for what is written: candidates are rounded and measured again, GPTQ block after block. As searched when left out."),
]
Steps = Annotated[
    list[str],
    typer.Option(
        "--step", help="What follows the formats, in order: router-calibration, or router-calibration:ridge=32. The method's own when left out."
    ),
]
Rare = Annotated[
    str, typer.Option(help="The price of experts that the text hardly visits: floor (from the others), or forced (measured with tokens sent there).")
]
Sensitivity = Annotated[
    str, typer.Option(help="How formats are priced before anything is measured: gradient, importance, weight, measured, or any other proxy.")
]
NCalibration = Annotated[int, typer.Option("--calibration-sequences", help=f"Sequences to measure sensitivities on, {CALIBRATION_SEQUENCES}.")]
NHeldOut = Annotated[int, typer.Option("--held-out-sequences", help=f"Sequences to judge the result by, {HELD_OUT_SEQUENCES}.")]
NOrdering = Annotated[int, typer.Option("--calibration-sequences", help=f"Sequences to measure energies on, {ORDERING_SEQUENCES}.")]
Length = Annotated[int, typer.Option("--sequence-length", help=f"Tokens of a sequence, {SEQUENCE_LENGTH}, and no more than the model was made for.")]
Seed = Annotated[int, typer.Option(help=f"The same seed gives the same plan; {SEED}.")]
Method = Annotated[str, typer.Option(help="How to search: auto, a published method, or a baseline; `bitwright methods` lists them.")]
AsPublished = Annotated[
    bool, typer.Option("--as-published", help="Ship the method's own plan, whatever else measures better, and compute only what the method needs.")
]
Evaluations = Annotated[
    int, typer.Option(help=f"Choices that the search may measure, on the calibration text, {EVALUATIONS}; 0 takes the table's word.")
]
TokenLimit = Annotated[float, typer.Option("--tokens", help=f"Tokens that the search may read, forward and backward, {TOKENS}.")]
Minutes = Annotated[float, typer.Option(help=f"Time that the search may take, {SECONDS}.")]
Objectives = Annotated[
    str,
    typer.Option(help="What to make small, the first deciding: kl,flips,worst5%,error:TASK.jsonl,active-bytes,... The method's own when left out."),
]
AtMost = Annotated[str, typer.Option("--at-most", help="Ceilings, as in seconds-per-token=0.05,active-bytes=60MB. kl=0.03 seeks the smallest file.")]
Profile = Annotated[
    str,
    typer.Option("--profile", metavar="DEVICE", help="The device of seconds and joules: a file of `bitwright profile`, or a known name."),
]
EnginePython = Annotated[
    str, typer.Option("--engine-python", metavar="PYTHON", help="For vllm: the Python of an environment that has it, to run it there.")
]
Device = Annotated[str, typer.Option(help="Where torch works: cpu, cuda or mps.")]


def writable(path: Path) -> Path:
    """The place of a file, if it can be written: asked before the work whose result goes there.

    Raises:
        OutputError: it cannot.
    """
    if path != Path():
        bw.pipeline.require_file(path)
    return path


PlanFile = Annotated[Path, typer.Option("-o", "--output", metavar="PLAN.json", help="Where the plan is written.", callback=writable)]


def settings_of(
    model: Model,
    target: Target = "llama.cpp",
    formats: Formats = "",
    keep: Keep = "",
    calibration: Calibration = ["self"],  # noqa: B006  # typer reads it off the signature
    text_column: TextColumn = "",
    held_out: HeldOut = "",
    imatrix: Imatrix = "",
    codec: Codec = "",
    ship_codec: ShipCodec = "",
    steps: Steps = [],  # noqa: B006  # typer reads it off the signature
    rare: Rare = "floor",
    sensitivity: Sensitivity = "gradient",
    n_calibration: NCalibration = 64,
    n_held_out: NHeldOut = 32,
    sequence_length: Length = 128,
    seed: Seed = 0,
) -> "bw.Settings":
    """What a run is asked to do."""
    menu = tuple(name.upper() for name in names_in(formats))
    return bw.Settings(
        *(model, target, menu, ",".join(calibration), held_out, imatrix, sensitivity),
        *(n_calibration, n_held_out, sequence_length, seed, names_in(keep), codec, ship_codec),
        steps=tuple(steps),
        rare=rare,
        text_column=text_column,
    )


def search_of(
    method: Method = "auto",
    as_published: AsPublished = False,
    evaluations: Evaluations = 16,
    tokens: TokenLimit = inf,
    minutes: Minutes = inf,
    objectives: Objectives = "",
) -> "Search":
    """How a run searches."""
    effort = bw.pipeline.Effort(evaluations, tokens, 60 * minutes)
    return bw.pipeline.Search(bw.pipeline.method_named(method), effort, bw.pipeline.named_objectives(objectives), as_published)


_ONE_LIMIT = "A plan needs one limit; give --budget for the bytes of the file, or --memory and --context for those of a run."


@dataclass(frozen=True)
class NoLimit:
    """Neither a budget nor a memory was given."""


def limit_of(
    budget: BudgetText = "", memory: MemoryText = "", context: Context = 0, parallel: Parallel = 1, cache_types: CacheTypes = ""
) -> "Budget | Memory | NoLimit":
    """What a plan stays within.

    Raises:
        UserError: both are given, or what is said of the engine is not for a memory.
    """
    if budget and memory:
        raise UserError(_ONE_LIMIT)
    if cache_types and not memory:
        raise UserError(f"The types of a cache count in a memory; --cache-types {cache_types} says nothing of a file: give --memory and --context.")
    if not memory:
        return bw.parse_budget(budget) if budget else NoLimit()
    return bw.pipeline.Memory(bw.parse_budget(memory), context, parallel, bw.pipeline.cache_types(cache_types or "any"))


def given(limit: "Budget | Memory | NoLimit") -> "Budget | Memory":
    """The limit that a plan needs.

    Raises:
        UserError: there is none.
    """
    if isinstance(limit, NoLimit):
        raise UserError(_ONE_LIMIT)
    return limit


def require_no(limit: "Budget | Memory | NoLimit") -> None:
    """Refuse a limit beside a ceiling on the divergence.

    Raises:
        UserError: there is one.
    """
    if not isinstance(limit, NoLimit):
        raise UserError("A ceiling on the divergence seeks the smallest file; it takes the place of --budget and --memory: leave them out, or kl=.")


def conditions_of(at_most: AtMost = "", profile: Profile = "") -> "Conditions":
    """What is asked of a plan beside its bytes."""
    device = bw.pipeline.read_device(profile) if profile else bw.pipeline.NO_DEVICE
    return bw.pipeline.parse_conditions(names_in(at_most), device)


def names_in(text: str) -> tuple[str, ...]:
    """The words between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def taking(*makers: Callable[..., object]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that takes the words of `makers` in the place of its first parameters, each of which is what one of them makes of its words.

    typer reads the words of a command off its signature, so the one that is joined here is put on the function.
    """
    of_makers = [inspect.signature(maker).parameters for maker in makers]

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())[len(makers) :]
        words = [*of_makers[0].values(), *own, *(word for of in of_makers[1:] for word in of.values())]

        def run(**given: Any) -> None:
            made = [maker(**{name: given.pop(name) for name in of}) for maker, of in zip(makers, of_makers, strict=True)]
            command(*made, **given)

        ordered = sorted((word.replace(kind=word.KEYWORD_ONLY) for word in words), key=lambda word: word.default is not word.empty)
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
        run.__annotations__ = {word.name: word.annotation for word in ordered}
        return run

    return decorated
