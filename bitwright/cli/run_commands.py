"""Commands that search, plan, build and check a model."""

from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer

import bitwright as bw
from bitwright.cli.option_groups import (
    CeilingOptions,
    ClusterOptions,
    LimitOptions,
    RunOptions,
    SearchOptions,
    part_bytes,
    refuse_limit,
    require_limit,
)
from bitwright.cli.options import (
    BUDGET,
    OUTPUT,
    SEARCH,
    Device,
    EnginePython,
    Model,
    OutFolder,
    PlanFile,
    RunFolder,
    Seed,
    ShipCodec,
    SplitMaxSize,
    Steps,
    Structure,
)
from bitwright.cli.output import (
    Rows,
    exit_if_broken,
    how_to_serve,
    out,
    print_cache_text,
    print_candidates,
    print_check,
    print_experts,
    print_objectives,
    print_original,
    print_shipping,
    print_texts,
    say,
)
from bitwright.cli.text_options import Calibration, Length, NOrdering, TextColumn
from bitwright.ranges import POINTS


def fit(
    run: RunOptions,
    limits: LimitOptions,
    ceilings: CeilingOptions,
    effort: SearchOptions,
    machines: ClusterOptions,
    out_folder: OutFolder,
    structure: Structure = "",
    engine_python: EnginePython = "",
    device: Device = "cpu",
) -> None:
    """Quantize a model within a budget: search, plan, build, check and report in one go.

    The budget is --budget, or --memory with --context, or --at-most kl=NATS for the smallest file within a divergence.
    """
    settings, by, limit, conditions = run.settings(structure=structure), effort.search(), limits.limit(), ceilings.conditions()
    work: dict[str, Any] = {"device": device, "progress": Rows(), "cluster": machines.cluster()}
    if conditions.nats_at_most < inf:
        refuse_limit(limit)
        fitted = bw.pipeline.fit_smallest(settings, conditions, out_folder, by=by, engine_python=engine_python, **work)
    else:
        needed = require_limit(limit)
        asked = bw.pipeline.settings_for_limit(settings, needed)
        fitted = bw.fit(asked, needed, out_folder, conditions=conditions, by=by, engine_python=engine_python, **work)
    opened = bw.open_run(out_folder)
    print_candidates(fitted.summary, fitted.plan.found)
    if fitted.summary.structure is not None:
        say(fitted.summary.structure.sentence)
    for note in fitted.summary.steps:
        say(note.sentence)
    print_shipping(fitted.summary)
    print_texts(fitted.summary)
    print_experts(fitted.summary)
    print_objectives(fitted.judgement.objectives, fitted.judgement.rows)
    out.print(bw.report.searches_table(fitted.summary))
    out.print(bw.report.format_histogram(fitted.summary))
    out.print(bw.report.stages_table(fitted.summary))
    print_check(fitted.check, fitted.model)
    print_cache_text(opened)
    print_original(opened)
    say(f"\nmodel   {fitted.model}\nplan    {out_folder / 'plan.json'}\nreport  {fitted.report}{how_to_serve(fitted.plan, limit)}")
    exit_if_broken(fitted.check)


def search(
    run: RunOptions,
    effort: SearchOptions,
    machines: ClusterOptions,
    out_folder: OutFolder,
    cache_types: Annotated[
        str,
        typer.Option(
            metavar="TYPES",
            help="Types of the KV cache in the engine: one for both, or one for keys and one for values, e.g. q8_0,q4_0; `any` measures all of them, "
            "so that `plan --memory` may choose.",
            rich_help_panel=BUDGET,
        ),
    ] = "f16",
    structure: Structure = "",
    points: Annotated[
        int, typer.Option(metavar="N", help=f"Number of points of the front to measure on held-out text, {POINTS}.", rich_help_panel=SEARCH)
    ] = 6,
    device: Device = "cpu",
) -> None:
    """Measure sensitivities, search the whole front of size against quality, and measure points of it on held-out text."""
    settings = run.settings(cache_types=cache_types, structure=structure)
    cluster, by = machines.cluster(), effort.search()
    bw.pipeline.search(settings, out_folder, n_points=points, by=by, device=device, progress=Rows(), cluster=cluster)
    opened = bw.open_run(out_folder)
    summary = bw.pipeline.describe(opened)
    out.print(bw.report.front_table(summary))
    print_texts(summary)
    print_experts(summary)
    out.print(bw.report.searches_table(summary))
    print_cache_text(opened)
    print_original(opened)
    say(f"\nNext: bitwright plan {out_folder} --budget SIZE -o plan.json\nreport  {out_folder / 'report.html'}")


def plan(
    run: RunFolder,
    limits: LimitOptions,
    ceilings: CeilingOptions,
    machines: ClusterOptions,
    path: PlanFile = Path("plan.json"),
    ship_codec: ShipCodec = "",
    steps: Steps = [],  # noqa: B006  # typer reads it off the signature
    device: Device = "cpu",
) -> None:
    """Choose the best plan of a run within a budget, and write it.

    The budget is --budget, or --memory with --context, or --at-most kl=NATS for the smallest file within a divergence.

    Candidates that were not measured yet are measured now.
    """
    limit, conditions, cluster, opened = limits.limit(), ceilings.conditions(), machines.cluster(), bw.open_run(run)
    work: dict[str, Any] = {"ship_codec": ship_codec, "steps": steps, "device": device, "progress": Rows(), "cluster": cluster}
    bw.pipeline.require_results(bw.pipeline.plan_results(path, opened.settings.target), bw.pipeline.run_inputs(opened))
    if conditions.nats_at_most < inf:
        refuse_limit(limit)
        made, summary = bw.pipeline.smallest_plan(opened, conditions, **work)
    else:
        needed = require_limit(limit)
        made, summary = bw.plan(opened, needed, conditions=conditions, **work)
    print_candidates(summary, made.found)
    for note in summary.steps:
        say(note.sentence)
    if summary.cost_fronts:
        out.print(bw.report.candidate_costs_table(summary))
    print_shipping(summary)
    print_texts(summary)
    print_experts(summary)
    print_cache_text(opened)
    _, *types = bw.pipeline.write_plan(made, path)
    listed = "".join(f"\ntensor types  {file}  (for llama-quantize --tensor-type-file)" for file in types)
    say(f"\nplan          {path}{listed}{how_to_serve(made, limit)}")


def build(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="Plan to build.")],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="MODEL",
            help="File or folder to write. Default: model.gguf for llama.cpp, the folder model for other targets.",
            rich_help_panel=OUTPUT,
        ),
    ] = "",
    split_max_size: SplitMaxSize = "",
) -> None:
    """Write the quantized model that a plan describes."""
    at_most, made = part_bytes(split_max_size), bw.read_plan(plan_file)
    path = Path(output or bw.pipeline.engine_named(bw.pipeline.target_of(made).name).file_name)
    bw.pipeline.require_results({path: "model"}, [plan_file])
    first = bw.build(made, path, split_max_bytes=at_most, progress=Rows())
    if first == path:
        say(f"{path}: {made.size_bytes:,} bytes, as planned.")
    else:
        files = bw.pipeline.files_of(made, first)
        n_bytes = sum(file.stat().st_size for file in files)
        extra = n_bytes - made.size_bytes
        differs = f"{abs(extra):,} {'more' if extra > 0 else 'fewer'} than planned, since it is cut otherwise" if extra else "as planned"
        say(f"{first} to {files[-1].name}: {n_bytes:,} bytes, {differs}.")


def check(
    model_file: Annotated[Path, typer.Argument(metavar="MODEL", help="File or folder that was built.")],
    plan_file: Annotated[Path, typer.Option("--plan", metavar="PLAN.json", help="Plan that it was built from.")],
    engine_python: EnginePython = "",
    device: Device = "cpu",
) -> None:
    """Load a built model in its engine and compare it with its plan: size, formats, tokenizer and divergence."""
    found = bw.verify(bw.read_plan(plan_file), model_file, engine_python=engine_python, device=device, progress=Rows())
    print_check(found, model_file)
    exit_if_broken(found)


def permute_channels(
    model: Model,
    out_folder: OutFolder,
    calibration: Calibration = ["self"],  # noqa: B006  # typer reads it off the signature
    text_column: TextColumn = "",
    sequences: NOrdering = 32,
    length: Length = 256,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Write the same model with its feed-forward channels sorted by contribution, for --target native-channels."""
    text, sizes = ",".join(calibration), {"n_sequences": sequences, "length": length, "seed": seed}
    found = bw.pipeline.order_channels(model, text, out_folder, **sizes, text_column=text_column, device=device, progress=Rows())
    shares = ", ".join(f"{share:.0%}" for share in found.shares)
    say(f"{out_folder}: channels of {found.n_parts} feed-forward parts sorted, {found.nats_per_token:.1e} nats/token from the original model")
    say(f"Energy by quarters of the channels: {shares}. Next: bitwright fit {out_folder} --target native-channels --budget SIZE --out FOLDER")
