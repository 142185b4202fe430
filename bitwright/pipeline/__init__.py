"""Pipeline from a model to a checked file: search, inspect the front, plan for a budget, build the file, verify it."""

from bitwright.compress import name_with
from bitwright.devices import parse_threads, read_device, read_devices
from bitwright.engines import Serving, engine_named, profile_machine, profile_named
from bitwright.methods import DROPS_DIFFER, DROPS_SOURCE, METHODS, STRUCTURE_METHODS, asked_structure, method_named
from bitwright.pipeline.calibration.long_text import cache_text
from bitwright.pipeline.channel_order import order_channels
from bitwright.pipeline.exchange import export, import_plan
from bitwright.pipeline.finishing.building import build, files_of, target_of
from bitwright.pipeline.fleet import DevicePlan, DeviceWithoutPlan, plan_fleet
from bitwright.pipeline.fleet_files import build_fleet, write_fleet
from bitwright.pipeline.planning.cost_limits import Conditions, parse_conditions, parse_costs
from bitwright.pipeline.planning.memory_budget import memory_of, serve_command, serving_of_model
from bitwright.pipeline.planning.size_limits import Memory, settings_for_limit
from bitwright.pipeline.pricing.original_model import extremes_text, parity_text
from bitwright.pipeline.pricing.proxy_comparison import compare_proxies, comparison_cost
from bitwright.pipeline.pricing.rule_prices import preflight, price_rules
from bitwright.pipeline.reporting.expert_uses import decode_read_bytes, expert_uses
from bitwright.pipeline.reporting.text_comparison import text_comparison
from bitwright.pipeline.results import plan_inputs, plan_results, require_file, require_folder, require_results, run_inputs, settings_inputs
from bitwright.pipeline.run import Run, open_run
from bitwright.pipeline.searching.search import Search, named_objectives
from bitwright.pipeline.settings import Settings
from bitwright.pipeline.smallest import fit_smallest, smallest_plan
from bitwright.pipeline.verbs import Fitted, describe, fit, plan, search, verify, write_plan
from bitwright.pipeline.workers.cluster import Cluster, cluster_of
from bitwright.spaces import cache_types

__all__ = [
    "DROPS_DIFFER",
    "DROPS_SOURCE",
    "METHODS",
    "STRUCTURE_METHODS",
    "Cluster",
    "Conditions",
    "DevicePlan",
    "DeviceWithoutPlan",
    "Fitted",
    "Memory",
    "Run",
    "Search",
    "Serving",
    "Settings",
    "asked_structure",
    "build",
    "build_fleet",
    "cache_text",
    "cache_types",
    "cluster_of",
    "compare_proxies",
    "comparison_cost",
    "decode_read_bytes",
    "describe",
    "engine_named",
    "expert_uses",
    "export",
    "extremes_text",
    "files_of",
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
]
