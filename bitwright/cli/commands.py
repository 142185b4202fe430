"""Command line: every command by its name, and the panel of `--help` that it stands in."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

from bitwright.cli.exchange_commands import export, import_
from bitwright.cli.guard import guarded
from bitwright.cli.inspect_commands import experts, front, methods, preflight, proxies, rules
from bitwright.cli.machine_commands import fleet, memory, profile
from bitwright.cli.option_groups import flattened
from bitwright.cli.options import PANELS
from bitwright.cli.run_commands import build, check, fit, permute_channels, plan, search

COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Search and build": {
        "fit": fit,
        "search": search,
        "plan": plan,
        "build": build,
        "check": check,
        "permute-channels": permute_channels,
    },
    "Inspect": {"front": front, "experts": experts, "methods": methods, "proxies": proxies, "preflight": preflight, "rules": rules},
    "Other tools": {"export": export, "import": import_},
    "Machines": {"memory": memory, "fleet": fleet, "profile": profile},
}
_FORMER_NAMES = {"order": permute_channels}

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback(help="Find the precision of every layer of a model within a memory budget, and write the finished model.")
def _root() -> None:
    return


class Command(TyperCommand):
    """Command whose `--help` shows the panels in the order of `PANELS`, and itself in the last of them."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return arguments and options, in the order of their panels."""
        found: list[Any] = TyperCommand.get_params(self, ctx)
        for option in found:
            if isinstance(option, TyperOption) and option.name == "help":
                option.rich_help_panel = PANELS[-1]
        return sorted(found, key=_panel_index)


def _panel_index(option: object) -> int:
    return PANELS.index(option.rich_help_panel) if isinstance(option, TyperOption) and option.rich_help_panel else -1


for _panel, _commands in COMMANDS.items():
    for _name, _command in _commands.items():
        app.command(_name, cls=Command, rich_help_panel=_panel)(flattened(_command))
for _name, _command in _FORMER_NAMES.items():
    app.command(_name, cls=Command, hidden=True)(flattened(_command))


def main() -> None:
    """Run the command line; an error ends it with one sentence and an exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    guarded(partial(app, prog_name="bitwright"))
