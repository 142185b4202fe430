"""The command line: words to objects, nothing else."""

import os
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import bitwright as bw
from bitwright.cli.guard import guarded
from bitwright.cli.options import (
    CacheTypes,
    Calibration,
    Context,
    Device,
    EnginePython,
    Length,
    Model,
    NoLimit,
    NOrdering,
    OutFolder,
    Parallel,
    PlanFile,
    Profile,
    RunFolder,
    Seed,
    ShipCodec,
    Steps,
    Target,
    TextColumn,
    conditions_of,
    given,
    limit_of,
    names_in,
    require_no,
    search_of,
    settings_of,
    taking,
    writable,
)
from bitwright.cli.output import (
    Rows,
    exit_if_broken,
    how_to_serve,
    out,
    print_cache_text,
    print_check,
    print_costs,
    print_experts,
    print_original,
    print_shipping,
    print_texts,
    say,
)
from bitwright.errors import BrokenPromiseError
from bitwright.ranges import PLANS, POINTS, THREADS

if TYPE_CHECKING:
    from bitwright.pipeline import Conditions, Memory, Search
    from bitwright.spaces import Budget

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Engine = Annotated[str, typer.Option(help="An engine with a profile, as `--target` names it.")]
EngineVersion = Annotated[str, typer.Option("--engine-version", help="Its version; that of the profile when left out.")]


@app.callback(help="Bitwright: which precision should every layer of a model get within a memory budget, and the finished model.")
def _root() -> None:
    return


@app.command()
@taking(settings_of, search_of, limit_of, conditions_of)
def fit(
    settings: "bw.Settings",
    by: "Search",
    wanted: "Budget | Memory | NoLimit",
    conditions: "Conditions",
    out_folder: OutFolder,
    engine_python: EnginePython = "",
    device: Device = "cpu",
) -> None:
    """From a model and a budget to a checked mixed-precision file: search, plan, build, check and report in one go."""
    if conditions.nats_at_most < inf:
        require_no(wanted)
        fitted = bw.pipeline.fit_smallest(settings, conditions, out_folder, by=by, engine_python=engine_python, device=device, progress=Rows())
    else:
        limit = given(wanted)
        asked = bw.pipeline.deciding(settings, limit)
        fitted = bw.fit(asked, limit, out_folder, conditions=conditions, by=by, engine_python=engine_python, device=device, progress=Rows())
    out.print(bw.report.candidates_table(fitted.summary))
    say(bw.report.whose_plan(fitted.plan.found))
    print_shipping(fitted.summary)
    print_texts(fitted.summary)
    print_experts(fitted.summary)
    if fitted.judgement.rows:
        rows = ((name, ((e.value, e.standard_error) for e in estimates)) for name, estimates in fitted.judgement.rows)
        out.print(bw.report.objectives_table(fitted.judgement.objectives, rows))
    out.print(bw.report.searches_table(fitted.summary))
    out.print(bw.report.format_histogram(fitted.summary))
    out.print(bw.report.stages_table(fitted.summary))
    print_check(fitted.check)
    print_cache_text(bw.open_run(out_folder))
    print_original(bw.open_run(out_folder))
    say(f"\nmodel   {fitted.model}\nplan    {out_folder / 'plan.json'}\nreport  {fitted.report}{how_to_serve(fitted.plan, wanted)}")
    exit_if_broken(fitted.check)


@app.command()
@taking(settings_of, search_of)
def search(
    settings: "bw.Settings",
    by: "Search",
    out_folder: OutFolder,
    cache_types: CacheTypes = "f16",
    points: Annotated[int, typer.Option(help=f"Points of the front to measure on held-out text, {POINTS}.")] = 6,
    device: Device = "cpu",
) -> None:
    """Measure sensitivities, find the whole front of size against quality, and measure points along it."""
    asked = replace(settings, cache_types=cache_types)
    bw.pipeline.search(asked, out_folder, n_points=points, by=by, device=device, progress=Rows())
    summary = bw.pipeline.describe(bw.open_run(out_folder))
    out.print(bw.report.front_table(summary))
    print_texts(summary)
    print_experts(summary)
    out.print(bw.report.searches_table(summary))
    print_cache_text(bw.open_run(out_folder))
    print_original(bw.open_run(out_folder))
    say(f"\nNext: bitwright plan {out_folder} --budget SIZE -o plan.json\nreport  {out_folder / 'report.html'}")


@app.command()
def front(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for other programs.")] = False,
    costs: Annotated[str, typer.Option("--costs", help="A third axis each: active-bytes,seconds-per-token,joules-per-token.")] = "",
    profile: Profile = "",
    page: Annotated[Path, typer.Option("--report", metavar="FILE.html", help="Write the report with these axes.", callback=writable)] = Path(),
) -> None:
    """The front of a finished search: the least divergence for every size, and for every size and ceiling on a cost."""
    if page != Path():
        bw.pipeline.require_results({page: "report"}, bw.pipeline.read_by_run(bw.open_run(run)))
    device = bw.pipeline.read_device(profile) if profile else bw.pipeline.NO_DEVICE
    summary = bw.pipeline.describe(bw.open_run(run), bw.pipeline.parse_costs(costs), device=device)
    if as_json:
        out.file.write(bw.report.front_json(summary) + "\n")
    else:
        out.print(bw.report.front_table(summary))
        print_costs(summary)
    if page != Path():
        bw.report.write_page(summary, page)


@app.command()
def experts(
    run: RunFolder,
    plan_file: Annotated[Path, typer.Option("--plan", metavar="PLAN.json", help="A plan of this run, whose formats are shown beside.")] = Path(),
) -> None:
    """Which experts of a mixture the calibration text uses, and what each became."""
    formats = bw.read_plan(plan_file).formats if plan_file != Path() else {}
    opened = bw.open_run(run)
    out.print(bw.report.experts_table(bw.pipeline.expert_uses(opened, formats)))
    texts = bw.pipeline.text_comparison(opened, opened.prices.original_bytes)
    if isinstance(texts, bw.report.TextComparison):
        out.print(bw.report.routing_table(texts))
    if formats:
        read, whole = bw.pipeline.read_by_a_step(opened, formats)
        say(f"A decode step reads {read:,.0f} of {whole:,} bytes.")


@app.command()
def order(
    model: Model,
    out_folder: OutFolder,
    calibration: Calibration = ["self"],  # noqa: B006  # typer reads it off the signature
    text_column: TextColumn = "",
    sequences: NOrdering = 32,
    length: Length = 256,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """The same model with the channels of its feed-forward parts in the order of what they give, for --target native-channels."""
    text, sizes = ",".join(calibration), {"n_sequences": sequences, "length": length, "seed": seed}
    found = bw.pipeline.order_channels(model, text, out_folder, **sizes, text_column=text_column, device=device, progress=Rows())
    shares = ", ".join(f"{share:.0%}" for share in found.shares)
    say(f"{out_folder}: {found.n_parts} feed-forward parts, {found.nats_per_token:.1e} nats/token from the model as it was")
    say(f"Energy by quarters of their channels: {shares}. Next: bitwright fit {out_folder} --target native-channels --budget SIZE --out FOLDER")


@app.command()
def methods() -> None:
    """The search methods: what each is, where it was published, and what is done otherwise here."""
    out.print(bw.report.methods_table(tuple((m.name, m.source, m.differs) for m in bw.pipeline.METHODS)))


@app.command()
def proxies(
    run: RunFolder,
    names: Annotated[str, typer.Option("--proxies", help="Names, as in gradient,first-order. All that are cheap on this model when left out.")] = "",
    plans: Annotated[int, typer.Option(help=f"Random plans to measure, half of them of one size, {PLANS}.")] = 48,
    device: Device = "cpu",
) -> None:
    """Which proxy to trust on this model: how each ranks plans that are measured now."""
    opened, asked = bw.open_run(run), names_in(names)
    cost = bw.pipeline.comparison_cost(opened, asked, n_plans=plans)
    out.print(bw.report.costs_table(cost.proxies))
    say(cost.text)
    found = bw.pipeline.compare_proxies(opened, asked, n_plans=plans, device=device, progress=Rows())
    out.print(bw.report.proxies_table(found))
    out.print(bw.report.agreement_table(found))
    say(bw.report.verdict(found))


@app.command()
@taking(limit_of, conditions_of)
def plan(
    limit: "Budget | Memory | NoLimit",
    conditions: "Conditions",
    run: RunFolder,
    path: PlanFile = Path("plan.json"),
    ship_codec: ShipCodec = "",
    steps: Steps = [],  # noqa: B006  # typer reads it off the signature
    device: Device = "cpu",
) -> None:
    """The best plan within a budget or a memory, and ceilings beside it; candidates that were not measured yet are measured now."""
    opened = bw.open_run(run)
    bw.pipeline.require_results(bw.pipeline.of_plan(path, opened.settings.target), bw.pipeline.read_by_run(opened))
    if conditions.nats_at_most < inf:
        require_no(limit)
        made, summary = bw.pipeline.smallest_plan(opened, conditions, ship_codec=ship_codec, steps=steps, device=device, progress=Rows())
    else:
        made, summary = bw.plan(opened, given(limit), conditions=conditions, ship_codec=ship_codec, steps=steps, device=device, progress=Rows())
    out.print(bw.report.candidates_table(summary))
    if summary.cost_fronts:
        out.print(bw.report.candidate_costs_table(summary))
    print_shipping(summary)
    print_texts(summary)
    print_experts(summary)
    print_cache_text(opened)
    _, *types = bw.pipeline.write_plan(made, path)
    say(
        f"\nplan          {path}"
        + "".join(f"\ntensor types  {file}  (for llama-quantize --tensor-type-file)" for file in types)
        + how_to_serve(made, limit)
    )


@app.command()
def build(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="The plan to materialise.")],
    output: Annotated[str, typer.Option("-o", "--output", metavar="MODEL", help="The file or folder to write.")] = "",
) -> None:
    """Write the file that a plan describes, or the folder."""
    made = bw.read_plan(plan_file)
    path = Path(output or bw.pipeline.engine_named(bw.pipeline.target_of(made).name).file_name)
    bw.pipeline.require_results({path: "model"}, [plan_file])
    bw.build(made, path, progress=Rows())
    say(f"{path}: {made.size_bytes:,} bytes, as planned.")


@app.command()
def check(
    model_file: Annotated[Path, typer.Argument(metavar="MODEL", help="The built file or folder.")],
    plan_file: Annotated[Path, typer.Option("--plan", metavar="PLAN.json", help="The plan it was built from.")],
    engine_python: EnginePython = "",
    device: Device = "cpu",
) -> None:
    """Load what was built in the engine and compare it with what its plan promised."""
    found = bw.verify(bw.read_plan(plan_file), model_file, engine_python=engine_python, device=device, progress=Rows())
    print_check(found)
    exit_if_broken(found)


@app.command()
def preflight(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="The plan to ask about.")],
    engine: Engine,
    version: EngineVersion = "",
) -> None:
    """What of a plan an engine would not load: which tensor breaks which rule, before any work."""
    target = bw.pipeline.profile_named(engine, version)
    broken = bw.pipeline.preflight(bw.read_plan(plan_file), target)
    if broken:
        out.print(bw.report.rule_violations_table(f"{target.name} {target.version}", broken))
        raise BrokenPromiseError(
            f"{target.name} {target.version} would not load this plan, for {len(broken)} tensors: search with --target {engine}."
        )
    say(f"{target.name} {target.version} loads every tensor of this plan, by the rules of its profile.")


@app.command()
def rules(run: RunFolder, engine: Engine, version: EngineVersion = "") -> None:
    """What each rule of an engine costs on the model of a run: the predicted front with it and without."""
    target = bw.pipeline.profile_named(engine, version)
    for rule in target.rules:
        say(f"{rule.name}: {rule.sentence}  ({rule.source})")
    for tie in target.fused:
        say(f"{tie.name}: {tie.sentence}  ({tie.source})")
    out.print(bw.report.rule_prices_table(bw.pipeline.price_rules(bw.open_run(run), target)))


@app.command()
def export(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="The plan to write.")],
    to: Annotated[str, typer.Option(help="The tool: autoround, gptqmodel, llm-compressor, mlx, modelopt or llama-quantize.")],
    path: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where it is written.", callback=writable)],
) -> None:
    """Write a plan in the words of another tool."""
    made = bw.read_plan(plan_file)
    bw.pipeline.require_results({path: "export"}, [plan_file, *bw.pipeline.read_by_plan(made)])
    exported = bw.pipeline.export(made, to)
    bw.pipeline.write_text(path, exported.text, kind="export")
    say(f"{to}  {path}\n{exported.note}")


@app.command("import")
@taking(settings_of)
def import_(
    settings: "bw.Settings",
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The other tool's file.")],
    from_: Annotated[str, typer.Option("--from", help="The tool: autoround, gptqmodel, llm-compressor, mlx, modelopt or llama-quantize.")],
    out_folder: OutFolder,
    path: PlanFile = Path("plan.json"),
    device: Device = "cpu",
) -> None:
    """Read another tool's plan, measure what it asks for, and write it as a plan."""
    bw.pipeline.require_results(bw.pipeline.of_plan(path, settings.target), [file, *bw.pipeline.read_by_settings(settings)])
    made = bw.pipeline.import_plan(settings, file, from_, out_folder, device=device, progress=Rows())
    bw.pipeline.write_plan(made, path)
    found = made.divergence
    say(f"{path}: {len(made.formats)} tensors, {made.size_bytes:,} bytes, {found.nats_per_token:.4f} ± {found.standard_error:.4f} nats/token")


@app.command()
def memory(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model as for `fit`, or a plan whose name ends in .json.")],
    context: Context,
    parallel: Parallel = 1,
    cache_types: Annotated[str, typer.Option(help="Types of the cache, as in q8_0,q4_0. Those of the plan when left out, f16 without one.")] = "",
    target: Target = "llama.cpp",
) -> None:
    """Where every byte of a run goes: weights, cache, buffers and the engine."""
    serving = bw.pipeline.serving_of_model(model, context, parallel, cache_types)
    found = bw.pipeline.memory_of(model, serving, target=target)
    out.print(bw.report.memory_table((line.name, line.size_bytes, line.known, line.detail) for line in found.lines))
    say(f"Counted for: {bw.pipeline.serve_command(target, model, serving)}")


@app.command()
def fleet(
    run: RunFolder,
    devices: Annotated[Path, typer.Argument(metavar="DEVICES.toml", help="Tables [[device]], each a profile or the name of one with other words.")],
    out_folder: OutFolder,
    build_models: Annotated[bool, typer.Option("--build/--no-build", help="Build the models as well as the plans.")] = True,
) -> None:
    """For every device its best plan, from the measurements of one run and without measuring anything again."""
    bw.pipeline.require_folder(out_folder)
    opened = bw.open_run(run)
    found = bw.pipeline.plan_fleet(opened, bw.pipeline.read_devices(devices))
    rows = [(row, row.plan) for row in found.assigned]
    out.print(
        bw.report.fleet_table(
            bw.report.FleetRow(
                *(row.device.name, made.size_bytes, 8 * made.size_bytes / made.model.n_weights),
                *(made.divergence.nats_per_token, made.divergence.standard_error, made.divergence.basis),
                str(made.cache.types),
                *(row.memory.total_bytes, row.device.usable_bytes, row.tokens_per_second),
            )
            for row, made in rows
        )
    )
    for row in found.rows:
        if isinstance(row, bw.pipeline.Unserved):
            say(row.reason)
    print_cache_text(opened)
    sums = bw.pipeline.build_fleet(found, out_folder, progress=Rows()) if build_models else {}
    say(f"\nmanifest  {bw.pipeline.write_fleet(found, out_folder, checksums=sums)}")


@app.command()
def profile(
    path: Annotated[Path, typer.Option("--out", metavar="HERE.toml", help="Where the profile is written.", callback=writable)],
    formats: Annotated[str, typer.Option(help="Formats to time, as in Q4_K,Q6_K. All of llama.cpp's when left out.")] = "",
    threads: Annotated[str, typer.Option(help=f"Numbers of threads to time on, {THREADS}; `all` needs the machine to itself.")] = "1,all",
    model: Annotated[str, typer.Option(help="A model as for `fit`, for whose shapes the rates are to hold. Llama's shape when left out.")] = "",
) -> None:
    """Time this machine in llama.cpp, format by format, on models of random weights made on the spot: a profile for `fleet`."""
    bw.pipeline.require_results({path: "device profile"}, [Path(model)] if model else [])
    found = bw.pipeline.profile_machine(names_in(formats), bw.pipeline.parse_threads(threads), model=model, progress=Rows())
    bw.pipeline.write_text(path, found.to_toml(), kind="device profile")
    say(f"{path}: {found.bandwidth_bytes_per_second / 1e9:.1f} GB/s; timed on {found.timed_on} in {found.seconds:.0f} s")
    for of in found.threads:
        say(f"{of.latency.n_threads} threads: decoding fitted to {of.latency.relative_error:.1%}")
    if found.is_disturbed:
        say(f"Several threads were timed while the machine had other work (load {found.load:.1f}): time them again when it has none.")


def main() -> None:
    """Run the command line; however it ends, it is with one sentence and its exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    guarded(app)
