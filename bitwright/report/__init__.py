"""Report of a finished run: tables for the terminal and one self-contained HTML page."""

from bitwright.report.calibration_texts import Allocation, CalibrationText, TextAllocation, TextComparison, kinds_table, routing_table, texts_table
from bitwright.report.cost_front import CostFront
from bitwright.report.limits import SizeLimit
from bitwright.report.page import write_page
from bitwright.report.predicted_front import PredictedFront
from bitwright.report.records import front_json
from bitwright.report.search_history import Forecast, SearchHistory, SearchStep, Validation
from bitwright.report.shipping import ShippedCandidate, Shipping, shipping_table
from bitwright.report.step_note import StepNote
from bitwright.report.structure_note import Decoding, StructureNote
from bitwright.report.summary import Candidate, Quality, RunSummary, Stage
from bitwright.report.tables.cost_tables import candidate_costs_table, cost_front_table
from bitwright.report.tables.engines import RulePrice, RulePrices, rule_prices_table, rule_violations_table
from bitwright.report.tables.experts import ExpertUse, experts_table, never_routed_to
from bitwright.report.tables.fleet_table import FleetRow, fleet_table
from bitwright.report.tables.memory_table import memory_table
from bitwright.report.tables.methods import methods_table, objectives_table, whose_plan
from bitwright.report.tables.proxy_tables import ProxyComparison, ProxyCost, RankedProxy, Ranks, agreement_table, costs_table, proxies_table, verdict
from bitwright.report.tables.tables import candidates_table, check_table, format_histogram, front_table, searches_table, stages_table

__all__ = [
    "Allocation",
    "CalibrationText",
    "Candidate",
    "CostFront",
    "Decoding",
    "ExpertUse",
    "FleetRow",
    "Forecast",
    "PredictedFront",
    "ProxyComparison",
    "ProxyCost",
    "Quality",
    "RankedProxy",
    "Ranks",
    "RulePrice",
    "RulePrices",
    "RunSummary",
    "SearchHistory",
    "SearchStep",
    "ShippedCandidate",
    "Shipping",
    "SizeLimit",
    "Stage",
    "StepNote",
    "StructureNote",
    "TextAllocation",
    "TextComparison",
    "Validation",
    "agreement_table",
    "candidate_costs_table",
    "candidates_table",
    "check_table",
    "cost_front_table",
    "costs_table",
    "experts_table",
    "fleet_table",
    "format_histogram",
    "front_json",
    "front_table",
    "kinds_table",
    "memory_table",
    "methods_table",
    "never_routed_to",
    "objectives_table",
    "proxies_table",
    "routing_table",
    "rule_prices_table",
    "rule_violations_table",
    "searches_table",
    "shipping_table",
    "stages_table",
    "texts_table",
    "verdict",
    "whose_plan",
    "write_page",
]
