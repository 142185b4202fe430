"""Commands about machines: the memory that a model takes, plans for a fleet of devices, and the profile of this one."""

from pathlib import Path
from typing import Annotated

import typer

import bitwright as bw
from bitwright.cli.options import BUDGET, OUTPUT, Context, OutFolder, Parallel, RunFolder, Target, split_names, writable
from bitwright.cli.output import Rows, out, print_cache_text, say
from bitwright.ranges import THREADS
from bitwright.written_files import publish_text


def memory(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model as for `bitwright fit`, or a plan, whose name ends in .json.")],
    context: Context,
    parallel: Parallel = 1,
    cache_types: Annotated[
        str,
        typer.Option(
            metavar="TYPES",
            help="Types of the KV cache: one for both, or one for keys and one for values, e.g. q8_0,q4_0. Default: those of the plan, else f16.",
            rich_help_panel=BUDGET,
        ),
    ] = "",
    target: Target = "llama.cpp",
) -> None:
    """Count the memory that a running engine takes: weights, KV cache, buffers and the engine itself."""
    serving = bw.pipeline.serving_of_model(model, context, parallel, cache_types)
    found = bw.pipeline.memory_of(model, serving, target=target)
    out.print(bw.report.memory_table((line.name, line.size_bytes, line.known, line.detail) for line in found.lines))
    say(f"Counted for: {bw.pipeline.serve_command(target, model, serving)}")


def fleet(
    run: RunFolder,
    devices: Annotated[
        Path, typer.Argument(metavar="DEVICES.toml", help="File with a table [\\[device]] for each: a profile, or a known one by name, with changes.")
    ],
    out_folder: OutFolder,
    build_models: Annotated[
        bool, typer.Option("--build/--no-build", help="Build the models, or write the plans only.", rich_help_panel=OUTPUT)
    ] = True,
) -> None:
    """Plan and build for every device of a fleet, from the measurements of one run; nothing is measured again."""
    bw.pipeline.require_folder(out_folder)
    opened = bw.open_run(run)
    found = bw.pipeline.plan_fleet(opened, bw.pipeline.read_devices(devices))
    rows = [(row, row.plan) for row in found.assigned]
    out.print(
        bw.report.fleet_table(
            bw.report.FleetRow(
                device=row.device.name,
                size_bytes=made.size_bytes,
                bits_per_weight=8 * made.size_bytes / made.model.n_weights,
                nats_per_token=made.divergence.nats_per_token,
                standard_error=made.divergence.standard_error,
                basis=made.divergence.basis,
                cache=str(made.cache.types),
                memory_bytes=row.memory.total_bytes,
                usable_bytes=row.device.usable_bytes,
                tokens_per_second=row.tokens_per_second,
            )
            for row, made in rows
        )
    )
    for row in found.rows:
        if isinstance(row, bw.pipeline.DeviceWithoutPlan):
            say(row.reason)
    print_cache_text(opened)
    sums = bw.pipeline.build_fleet(found, out_folder, progress=Rows()) if build_models else {}
    say(f"\nmanifest  {bw.pipeline.write_fleet(found, out_folder, checksums=sums)}")


def profile(
    path: Annotated[
        Path, typer.Option("--out", metavar="HERE.toml", help="File to write the profile to.", callback=writable, rich_help_panel=OUTPUT)
    ],
    formats: Annotated[str, typer.Option(metavar="NAMES", help="Formats to time, e.g. Q4_K,Q6_K. Default: all of llama.cpp.")] = "",
    threads: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS",
            help=f"Thread counts to time, each {THREADS}; `all` uses every processor and needs an idle machine, `free` those that are idle.",
        ),
    ] = "1,all",
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Model as for `bitwright fit`, whose matrix shapes are timed. Default: the shapes of a Llama.")
    ] = "",
) -> None:
    """Time this machine in llama.cpp, format by format, on random weights, and write a device profile for `fleet` and --profile."""
    bw.pipeline.require_results({path: "device profile"}, [Path(model)] if model else [])
    found = bw.pipeline.profile_machine(split_names(formats), bw.pipeline.parse_threads(threads), model=model, progress=Rows())
    publish_text(path, found.to_toml(), kind="device profile")
    say(f"{path}: {found.bandwidth_bytes_per_second / 1e9:.1f} GB/s; timed on {found.timed_on} in {found.seconds:.0f} s")
    for timed in found.threads:
        say(f"{timed.latency.n_threads} threads: decoding fitted to {timed.latency.relative_error:.1%}")
    if found.is_disturbed:
        say(f"Several threads were timed while the machine had other work (load {found.load:.1f}): time them again when it has none.")
