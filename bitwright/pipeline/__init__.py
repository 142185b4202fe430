"""The whole flow, step by step: search a model, look at its front, plan for a budget, build the file and check it."""

from bitwright.pipeline.building import build
from bitwright.pipeline.checking import Check, check
from bitwright.pipeline.run import Run, open_run
from bitwright.pipeline.settings import Settings
from bitwright.pipeline.verbs import Fitted, describe, fit, plan, search, verify, write_plan

__all__ = ["Check", "Fitted", "Run", "Settings", "build", "check", "describe", "fit", "open_run", "plan", "search", "verify", "write_plan"]
