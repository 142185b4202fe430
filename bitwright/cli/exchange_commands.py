"""Commands that exchange plans with other quantization tools."""

from pathlib import Path
from typing import Annotated

import typer

import bitwright as bw
from bitwright.cli.option_groups import RunOptions
from bitwright.cli.options import OUTPUT, Device, OutFolder, PlanFile, writable
from bitwright.cli.output import Rows, say
from bitwright.written_files import publish_text

_TOOLS = "autoround, gptqmodel, llm-compressor, mlx, modelopt, llama-quantize or evopress-50, -60 or -70"


def export(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN.json", help="Plan to export.")],
    to: Annotated[str, typer.Option(metavar="TOOL", help=f"Tool to write for: {_TOOLS}.")],
    path: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to write.", callback=writable, rich_help_panel=OUTPUT)],
) -> None:
    """Write a plan as a recipe of another quantization tool."""
    made = bw.read_plan(plan_file)
    bw.pipeline.require_results({path: "export"}, [plan_file, *bw.pipeline.plan_inputs(made)])
    exported = bw.pipeline.export(made, to)
    publish_text(path, exported.text, kind="export")
    say(f"{to}  {path}\n{exported.note}")


def import_(
    run: RunOptions,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Recipe or configuration that the other tool wrote or reads.")],
    from_: Annotated[str, typer.Option("--from", metavar="TOOL", help=f"Tool that the file belongs to: {_TOOLS}.")],
    out_folder: OutFolder,
    path: PlanFile = Path("plan.json"),
    device: Device = "cpu",
) -> None:
    """Read the recipe of another quantization tool, measure the allocation that it asks for, and write it as a plan."""
    settings = run.settings()
    bw.pipeline.require_results(bw.pipeline.plan_results(path, settings.target), [file, *bw.pipeline.settings_inputs(settings)])
    made = bw.pipeline.import_plan(settings, file, from_, out_folder, device=device, progress=Rows())
    bw.pipeline.write_plan(made, path)
    found = made.divergence
    say(f"{path}: {len(made.formats)} tensors, {made.size_bytes:,} bytes, {found.nats_per_token:.4f} ± {found.standard_error:.4f} nats/token")
