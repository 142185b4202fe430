"""Commands that show what a run found, which methods there are, and what an engine would say of a plan."""

from pathlib import Path
from typing import Annotated

import typer

import bitwright as bw
from bitwright.cli.options import OUTPUT, Device, Profile, RunFolder, split_names, writable
from bitwright.cli.output import Rows, out, print_costs, say
from bitwright.errors import BrokenPromiseError
from bitwright.ranges import PLANS

Engine = Annotated[str, typer.Option(metavar="ENGINE", help="Engine whose rules to apply, as for --target: vllm, transformers, llama.cpp, ...")]
EngineVersion = Annotated[
    str, typer.Option("--engine-version", metavar="VERSION", help="Version that the engine must have. Default: the one that Bitwright knows.")
]


def front(
    run: RunFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.", rich_help_panel=OUTPUT)] = False,
    costs: Annotated[
        str,
        typer.Option("--costs", metavar="NAMES", help="Costs to show as a third axis each: active-bytes,seconds-per-token,joules-per-token."),
    ] = "",
    profile: Profile = "",
    page: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE.html", help="Write the report with these axes to a file.", callback=writable, rich_help_panel=OUTPUT),
    ] = None,
) -> None:
    """Show the front of a run: the least divergence at every size, and at every size and ceiling on a cost."""
    if page is not None:
        bw.pipeline.require_results({page: "report"}, bw.pipeline.run_inputs(bw.open_run(run)))
    device = bw.pipeline.read_device(profile) if profile else None
    summary = bw.pipeline.describe(bw.open_run(run), bw.pipeline.parse_costs(costs), device=device)
    if as_json:
        out.file.write(bw.report.front_json(summary) + "\n")
    else:
        out.print(bw.report.front_table(summary))
        print_costs(summary)
    if page is not None:
        bw.report.write_page(summary, page)


def experts(
    run: RunFolder,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", metavar="PLAN.json", help="Plan of this run, to show the format of each expert beside it.")
    ] = None,
) -> None:
    """Show how often the calibration text uses each expert of a mixture, and the format that a plan gives it."""
    formats = bw.read_plan(plan_file).formats if plan_file is not None else {}
    opened = bw.open_run(run)
    out.print(bw.report.experts_table(bw.pipeline.expert_uses(opened, formats)))
    texts = bw.pipeline.text_comparison(opened, opened.original_bytes)
    if isinstance(texts, bw.report.TextComparison):
        out.print(bw.report.routing_table(texts))
    if formats:
        read, whole = bw.pipeline.decode_read_bytes(opened, formats)
        say(f"A decode step reads {read:,.0f} of {whole:,} bytes.")


def methods() -> None:
    """List the search methods: name, publication, and what differs from it here."""
    named = [(m.name, m.source, m.differs) for m in bw.pipeline.METHODS]
    named += [(f"--structure {m.name}", m.source, m.differs) for m in bw.pipeline.STRUCTURE_METHODS]
    named.append(("--structure evopress-drops:FILE", bw.pipeline.DROPS_SOURCE, bw.pipeline.DROPS_DIFFER))
    out.print(bw.report.methods_table(tuple(named)))


def proxies(
    run: RunFolder,
    names: Annotated[
        str,
        typer.Option("--proxies", metavar="NAMES", help="Proxies to compare, e.g. gradient,first-order. Default: all that are cheap on this model."),
    ] = "",
    plans: Annotated[int, typer.Option(metavar="N", help=f"Number of random plans to measure, half of them of equal size, {PLANS}.")] = 48,
    device: Device = "cpu",
) -> None:
    """Compare sensitivity proxies on the model of a run: how well each ranks plans, which are measured now."""
    opened, asked = bw.open_run(run), split_names(names)
    cost = bw.pipeline.comparison_cost(opened, asked, n_plans=plans)
    out.print(bw.report.costs_table(cost.proxies))
    say(cost.text)
    found = bw.pipeline.compare_proxies(opened, asked, n_plans=plans, device=device, progress=Rows())
    out.print(bw.report.proxies_table(found))
    out.print(bw.report.agreement_table(found))
    say(bw.report.verdict(found))


def preflight(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="Plan to check.")],
    engine: Engine,
    version: EngineVersion = "",
) -> None:
    """Check a plan against an engine's loading rules, without loading the model."""
    target = bw.pipeline.profile_named(engine, version)
    broken = bw.pipeline.preflight(bw.read_plan(plan_file), target)
    if broken:
        out.print(bw.report.rule_violations_table(f"{target.name} {target.version}", broken))
        raise BrokenPromiseError(
            f"{target.name} {target.version} would not load this plan, for {len(broken)} tensors: search with --target {engine}."
        )
    say(f"{target.name} {target.version} loads every tensor of this plan, by the rules of its profile.")


def rules(run: RunFolder, engine: Engine, version: EngineVersion = "") -> None:
    """Show what each loading rule of an engine costs on the model of a run: the predicted front with and without it."""
    target = bw.pipeline.profile_named(engine, version)
    for line in target.rule_lines:
        say(line)
    out.print(bw.report.rule_prices_table(bw.pipeline.price_rules(bw.open_run(run), target)))
