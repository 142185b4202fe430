"""Options of a calibration text and a held-out text."""

from typing import Annotated

import typer

from bitwright.cli.options import TEXT
from bitwright.ranges import CALIBRATION_SEQUENCES, HELD_OUT_SEQUENCES, ORDERING_SEQUENCES, SEQUENCE_LENGTH

Calibration = Annotated[
    list[str],
    typer.Option(
        metavar="TEXT",
        help="Calibration text: a .txt, .jsonl, .json or .parquet file, the name of a data set, or `self` (sampled from the model). Several are "
        "mixed by weight: a.txt:0.7,b.txt:0.3.",
        rich_help_panel=TEXT,
    ),
]
TextColumn = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Column with the text, or with chat messages, in .jsonl, .json, .parquet and data sets. Default: `text`, else `messages`.",
        rich_help_panel=TEXT,
    ),
]
HeldOut = Annotated[
    str,
    typer.Option(
        metavar="TEXT",
        help="Held-out text to compare the candidates on. Default: a part of the calibration text that is not calibrated on.",
        rich_help_panel=TEXT,
    ),
]
Imatrix = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        help="Importance matrix written by llama.cpp's llama-imatrix. Default: collected from the calibration text.",
        rich_help_panel=TEXT,
    ),
]
NCalibration = Annotated[
    int,
    typer.Option("--calibration-sequences", metavar="N", help=f"Number of sequences to calibrate on, {CALIBRATION_SEQUENCES}.", rich_help_panel=TEXT),
]
NHeldOut = Annotated[
    int,
    typer.Option(
        "--held-out-sequences",
        metavar="N",
        help=f"Number of held-out sequences to measure candidates on, {HELD_OUT_SEQUENCES}.",
        rich_help_panel=TEXT,
    ),
]
NOrdering = Annotated[
    int,
    typer.Option(
        "--calibration-sequences",
        metavar="N",
        help=f"Number of sequences to measure the energy of the channels on, {ORDERING_SEQUENCES}.",
        rich_help_panel=TEXT,
    ),
]
Length = Annotated[
    int,
    typer.Option(
        "--sequence-length",
        metavar="TOKENS",
        help=f"Length of a sequence in tokens, {SEQUENCE_LENGTH}, and at most the context that the model was trained for.",
        rich_help_panel=TEXT,
    ),
]
