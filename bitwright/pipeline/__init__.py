"""The whole flow, step by step: search a model, look at its front, plan for a budget, build the file and check it."""

from bitwright.objectives import MemoryUse, Serving
from bitwright.pipeline.building import build, target_of
from bitwright.pipeline.campaign import Search, named_objectives
from bitwright.pipeline.checking import check
from bitwright.pipeline.comparing import compare_proxies, comparison_cost
from bitwright.pipeline.conditions import NO_CONDITIONS, NO_DEVICE, AtMost, Conditions, Limit, NoDevice, parse_at_most, parse_conditions, parse_costs
from bitwright.pipeline.costs import Costs, costs_of, limits_of, named_costs
from bitwright.pipeline.engines import preflight, price_rules
from bitwright.pipeline.expert_uses import expert_uses, read_by_a_step
from bitwright.pipeline.exploring import Effort
from bitwright.pipeline.exporting import Exported, export
from bitwright.pipeline.fleet import Assigned, Fleet, Unserved, plan_fleet
from bitwright.pipeline.fleet_files import build_fleet, write_fleet
from bitwright.pipeline.importing import import_plan
from bitwright.pipeline.limits import Memory, deciding
from bitwright.pipeline.long_text import cache_text
from bitwright.pipeline.memory import Anatomy, anatomy, memory_budget, memory_of, serving_of_model
from bitwright.pipeline.methods import Method
from bitwright.pipeline.ordering import Ordered, order_channels
from bitwright.pipeline.planning import write_text
from bitwright.pipeline.presets import METHODS, PUBLISHED, method_named
from bitwright.pipeline.profiling import MachineProfile, parse_threads, profile_machine
from bitwright.pipeline.promises import Check
from bitwright.pipeline.run import Run, open_run
from bitwright.pipeline.settings import Settings
from bitwright.pipeline.smallest import fit_smallest, smallest_plan
from bitwright.pipeline.text_comparison import text_comparison
from bitwright.pipeline.verbs import Fitted, describe, fit, plan, search, verify, write_plan
from bitwright.spaces import cache_types, engine, read_device, read_devices

__all__ = [
    "METHODS",
    "NO_CONDITIONS",
    "NO_DEVICE",
    "PUBLISHED",
    "Anatomy",
    "Assigned",
    "AtMost",
    "Check",
    "Conditions",
    "Costs",
    "Effort",
    "Exported",
    "Fitted",
    "Fleet",
    "Limit",
    "MachineProfile",
    "Memory",
    "MemoryUse",
    "Method",
    "NoDevice",
    "Ordered",
    "Run",
    "Search",
    "Serving",
    "Settings",
    "Unserved",
    "anatomy",
    "build",
    "build_fleet",
    "cache_text",
    "cache_types",
    "check",
    "compare_proxies",
    "comparison_cost",
    "costs_of",
    "deciding",
    "describe",
    "engine",
    "expert_uses",
    "export",
    "fit",
    "fit_smallest",
    "import_plan",
    "limits_of",
    "memory_budget",
    "memory_of",
    "method_named",
    "named_costs",
    "named_objectives",
    "open_run",
    "order_channels",
    "parse_at_most",
    "parse_conditions",
    "parse_costs",
    "parse_threads",
    "plan",
    "plan_fleet",
    "preflight",
    "price_rules",
    "profile_machine",
    "read_by_a_step",
    "read_device",
    "read_devices",
    "search",
    "serving_of_model",
    "smallest_plan",
    "target_of",
    "text_comparison",
    "verify",
    "write_fleet",
    "write_plan",
    "write_text",
]
