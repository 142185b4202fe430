"""Texts of benchmarks that calibrate on one file and measure on another, and their options on the command line."""

import argparse
from pathlib import Path

from bitwright.compress import Model
from bitwright.objectives import Shape, Tokens, read_documents, split_texts


def add_texts(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the two texts and the length of their sequences."""
    parser.add_argument("--calibration", type=Path, required=True, help="text to calibrate on")
    parser.add_argument("--held-out", type=Path, required=True, help="text to measure on")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence (default: %(default)s)")


def two_texts(model: Model, asked: argparse.Namespace, *, n_calibration: int, n_held_out: int) -> tuple[Tokens, Tokens]:
    """Return the calibration text, `(n_calibration, length)`, and the held-out text, `(n_held_out, length)`."""
    shapes = Shape(n_calibration, 0, asked.length), Shape(0, n_held_out, asked.length)
    first = split_texts(read_documents(asked.calibration), model.tokenizer, shapes[0], name=asked.calibration.name)
    second = split_texts(read_documents(asked.held_out), model.tokenizer, shapes[1], name=asked.held_out.name)
    return first.calibration, second.held_out
