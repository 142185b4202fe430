"""Pipeline from a model to a checked file: search, inspect the front, plan for a budget, build the file, verify it."""

from bitwright.compress import name_with
from bitwright.devices import read_device, read_devices
from bitwright.engines import Serving, engine_named, parse_threads, profile_machine, profile_named
from bitwright.methods import METHODS, method_named
from bitwright.pipeline.ask_tell_loop import Effort
from bitwright.pipeline.building import build, target_of
from bitwright.pipeline.candidates import write_text
from bitwright.pipeline.channel_order import order_channels
from bitwright.pipeline.comparing import compare_proxies, comparison_cost
from bitwright.pipeline.cost_limits import NO_DEVICE, Conditions, parse_conditions, parse_costs
from bitwright.pipeline.engines import preflight, price_rules
from bitwright.pipeline.expert_uses import decode_read_bytes, expert_uses
from bitwright.pipeline.exporting import export
from bitwright.pipeline.extreme_weights import extremes_text
from bitwright.pipeline.fleet import DevicePlan, DeviceWithoutPlan, plan_fleet
from bitwright.pipeline.fleet_files import build_fleet, write_fleet
from bitwright.pipeline.importing import import_plan
from bitwright.pipeline.long_text import cache_text
from bitwright.pipeline.memory_budget import memory_of, serve_command, serving_of_model
from bitwright.pipeline.outputs import require_file, require_folder
from bitwright.pipeline.parity import parity_text
from bitwright.pipeline.results import plan_inputs, plan_results, require_results, run_inputs, settings_inputs
from bitwright.pipeline.run import Run, open_run
from bitwright.pipeline.run_search import Search, named_objectives
from bitwright.pipeline.settings import Settings
from bitwright.pipeline.size_limits import Memory, settings_for_limit
from bitwright.pipeline.smallest import fit_smallest, smallest_plan
from bitwright.pipeline.text_comparison import text_comparison
from bitwright.pipeline.verbs import Fitted, describe, fit, plan, search, verify, write_plan
from bitwright.spaces import cache_types

__all__ = [
    "METHODS",
    "NO_DEVICE",
    "Conditions",
    "DevicePlan",
    "DeviceWithoutPlan",
    "Effort",
    "Fitted",
    "Memory",
    "Run",
    "Search",
    "Serving",
    "Settings",
    "build",
    "build_fleet",
    "cache_text",
    "cache_types",
    "compare_proxies",
    "comparison_cost",
    "decode_read_bytes",
    "describe",
    "engine_named",
    "expert_uses",
    "export",
    "extremes_text",
    "fit",
    "fit_smallest",
    "import_plan",
    "memory_of",
    "method_named",
    "name_with",
    "named_objectives",
    "open_run",
    "order_channels",
    "parity_text",
    "parse_conditions",
    "parse_costs",
    "parse_threads",
    "plan",
    "plan_fleet",
    "plan_inputs",
    "plan_results",
    "preflight",
    "price_rules",
    "profile_machine",
    "profile_named",
    "read_device",
    "read_devices",
    "require_file",
    "require_folder",
    "require_results",
    "run_inputs",
    "search",
    "serve_command",
    "serving_of_model",
    "settings_for_limit",
    "settings_inputs",
    "smallest_plan",
    "target_of",
    "text_comparison",
    "verify",
    "write_fleet",
    "write_plan",
    "write_text",
]
