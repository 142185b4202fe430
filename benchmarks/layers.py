"""Matrices of some blocks of a model with the second moments of their inputs on two texts, and the options that name them on the command line."""

import argparse
from collections.abc import Mapping

from channel_scales import Matrix, matrices_of
from two_texts import add_texts, two_texts

from bitwright.compress import load

ROLES = ("attn_q", "attn_output", "ffn_gate", "ffn_down")
ALL_ROWS = 1 << 30


def parser_of_layers(description: str | None) -> argparse.ArgumentParser:
    """The arguments of benchmarks of one layer at a time."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a dense model, a folder of weights that were never quantized")
    add_texts(parser)
    parser.add_argument("--blocks", default="0", help="separated by commas (default: %(default)s)")
    parser.add_argument("--sequences", type=int, default=48, help="of each text (default: %(default)s)")
    return parser


def layers_of(args: argparse.Namespace, n_rows: int = ALL_ROWS) -> Mapping[str, Matrix]:
    """Queries, attention's output, gate and down of the blocks, by name, with at most `n_rows` of their rows."""
    model = load(args.model)
    texts = two_texts(model, args, n_calibration=args.sequences, n_held_out=args.sequences)
    return matrices_of(model, [f"blk.{block}.{role}.weight" for block in args.blocks.split(",") for role in ROLES], texts, n_rows)
