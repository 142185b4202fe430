"""Seconds of pricing every format that a target offers by a sample of rows, and what all rows would take at the same rates.

Formats are quantized one after another, so that each has its own seconds; the sweep prices those worth offering together. Seconds of all rows are
computed: those of the sample times the weights of all rows over its own, format by format. They leave out that packed tensors of all rows in all
formats pass the bound of the cache, so that a sweep makes them anew for every batch.

usage: python benchmarks/price_menu.py MODEL --calibration TEXT --out FOLDER [--formats NAMES] [--sequences 8,64] [--search-memory 3GB]
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

import bitwright as bw
from bitwright.compress import Distortion, RowSample, all_rows
from bitwright.pipeline.loaded_run import LoadedRun, set_up
from bitwright.pipeline.pricing.price_table import quantized_distortion, subject_of
from bitwright.pipeline.pricing.priced_rows import priced_rows
from bitwright.pipeline.pricing.run_space import whole_space
from bitwright.predictors import gradient_products
from bitwright.progress import Silent
from bitwright.spaces import Space


def main() -> None:
    """Print a line for each format, and the sums."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calibration", required=True)
    parser.add_argument("--formats", default="", help="default: all that the target offers by itself")
    parser.add_argument("--target", default="llama.cpp")
    parser.add_argument("--sequences", default="8,64")
    parser.add_argument("--search-memory", default="")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    n_sequences, length = map(int, given.sequences.split(","))
    settings = bw.Settings(
        given.model,
        target=given.target,
        calibration=given.calibration,
        formats=tuple(name for name in given.formats.split(",") if name),
        n_calibration=n_sequences,
        sequence_length=length,
        search_memory_bytes=bw.parse_budget(given.search_memory).size_bytes(0) if given.search_memory else 0,
    )
    run = set_up(settings, given.out, device="cpu", progress=Silent())
    print(f"{torch.get_num_threads()} threads; importance matrix", Spent(lambda: run.levels.importance), flush=True)
    everything = whole_space(run)
    sample = priced_rows(run, everything) or all_rows(run.levels)
    distortion = quantized(run, everything, sample)
    space = everything.narrowed(distortion.worth_offering(everything))
    pairs = f"{int(space.offered.sum()):,} of {int(everything.offered.sum()):,} pairs"
    print(f"gradient sweep of {pairs}", Spent(lambda: gradient_products(subject_of(run, space))))


class Spent:
    """Wall and processor seconds of some work, which is done when it is asked for."""

    def __init__(self, work: Callable[[], object]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.found = work()
        self.wall, self.cpu = time.perf_counter() - wall, time.process_time() - cpu

    def __str__(self) -> str:
        return f"{self.wall:.1f} s, {self.cpu:.1f} s of the processor"


def quantized(run: LoadedRun, everything: Space, sample: RowSample) -> Distortion:
    """Quantize and measure a space format by format, and print what each took."""
    print(f"{'format':>10s}{'weights, million':>18s}{'of':>9s}{'s':>9s}{'CPU s':>9s}{'million/CPU s':>15s}{'all rows, CPU s':>17s}", flush=True)
    errors, sums = np.full((2, *everything.offered.shape), np.nan), np.zeros(4)
    names = [form.name for form in everything.formats]
    stored = [everything.size_bits[u, names.index(unit.tensors[0].stored)] for u, unit in enumerate(everything.units)]
    for f, form in enumerate(everything.formats):
        units = np.flatnonzero(everything.offered[:, f] & (everything.size_bits[:, f] < stored))  # what is stored is lossless, and ends the menu
        if not len(units):
            continue
        offered = np.repeat(np.arange(len(everything.formats))[None] == f, len(units), axis=0)
        of_format = replace(everything, units=tuple(everything.units[u] for u in units), size_bits=everything.size_bits[units], offered=offered)
        spent = Spent(partial(quantized_distortion, run, of_format))
        assert isinstance(spent.found, Distortion)
        errors[0, units, f], errors[1, units, f] = spent.found.plain[:, f], spent.found.weighted[:, f]
        tensors = [tensor for unit in of_format.units for tensor in unit.tensors]
        drawn, whole = (sum(tensor.n_weights for tensor in each) / 1e6 for each in (map(sample.packed, tensors), tensors))
        line = np.array([drawn, spent.wall, spent.cpu, spent.cpu * whole / drawn])
        print(f"{form.name:>10s}{drawn:18.1f}{whole:9.1f}{line[1]:9.1f}{line[2]:9.1f}{drawn / spent.cpu:15.2f}{line[3]:17.0f}", flush=True)
        sums += line
    print(f"{'all':>10s}{sums[0]:18.1f}{'':9s}{sums[1]:9.1f}{sums[2]:9.1f}{sums[0] / sums[2]:15.2f}{sums[3]:17.0f}", flush=True)
    return Distortion(*errors)


if __name__ == "__main__":
    main()
