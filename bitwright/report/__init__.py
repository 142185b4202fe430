"""A finished run as tables and one self-contained page."""

from bitwright.report.headline import Headline, headline
from bitwright.report.page import write_page
from bitwright.report.summary import Candidate, NoLimit, NotMeasured, Quality, RunSummary, SizeLimit, Stage
from bitwright.report.tables import candidates_table, check_table, format_histogram, front_json, front_table, stages_table

__all__ = [
    "Candidate",
    "Headline",
    "NoLimit",
    "NotMeasured",
    "Quality",
    "RunSummary",
    "SizeLimit",
    "Stage",
    "candidates_table",
    "check_table",
    "format_histogram",
    "front_json",
    "front_table",
    "headline",
    "stages_table",
    "write_page",
]
