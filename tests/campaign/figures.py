"""Figures of a campaign, as lines of JSON in the file that `BITWRIGHT_FIGURES` names, and as a table: `python -m tests.campaign.figures FILE`."""

import json
import os
import sys
from pathlib import Path


def note(campaign: str, subject: str, **found: float) -> None:
    """Print the figures of one campaign on one subject, and keep them where the environment says so."""
    print(f"{campaign} {subject}: {found}")
    if path := os.environ.get("BITWRIGHT_FIGURES"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"campaign": campaign, "subject": subject, "found": found}) + "\n")


def table(lines: list[str]) -> str:
    """The figures as a table of Markdown, a row for each subject."""
    rows = [json.loads(line) for line in lines]
    body = [
        f"| {row['campaign']} | {row['subject']} | {_words(row['found'])} |"
        for row in sorted(rows, key=lambda row: (row["campaign"], row["subject"]))
    ]
    return "\n".join(["| campaign | of | figures |", "|---|---|---|", *body])


def _words(found: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in found.items())


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()))
