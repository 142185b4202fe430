"""Cell of the matrix: a family fitted to a target, in a process of its own, and what came of it."""

import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from safetensors import safe_open

import bitwright as bw
from benchmarks.families.family import Family
from bitwright.compress.models.joined_name import split_name
from bitwright.errors import BitwrightError, BudgetError
from bitwright.pipeline.verbs import Fitted
from bitwright.spaces import Budget

PRELOADED = ["bitwright.pipeline", "benchmarks.families.cells"]
FORMATS = {
    "llama.cpp": ("BF16", "Q8_0", "Q4_0"),
    "transformers": ("BF16", "W8_G32", "W4_G32"),
    "native": ("BF16", "INT8_G32", "INT4_G32"),
}
_SHAPE = {"n_calibration": 4, "n_held_out": 2, "sequence_length": 32}
_SECONDS = 240
_OTHER_MEDIA = ("visual", "vision", "projector", "connector")
#: shares of the language model's size in 16 bits that the budget is, the second where much stays in floats, and bytes for metadata and tokenizer
_SHARES, _REST_BYTES = (0.65, 0.85), 60_000


@dataclass(frozen=True)
class Cell:
    """Return the outcome of a family for a target: a sentence where it did not work, the empty string where it did.

    `gap` is what the check found between the engine and torch with the same weights, as it says it.
    """

    family: str
    target: str
    sentence: str
    bytes_promised: int = 0
    bytes_found: int = 0
    gap: str = ""
    seconds: float = 0.0

    @property
    def works(self) -> bool:
        """Return whether the model was built, is as promised, and is loaded by its engine."""
        return not self.sentence


def fitted(family: Family, target: str, model: str) -> Cell:
    """Fit the family's `model`, a folder or one with its GGUF file, to `target` in a new process, which may end as it likes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    started = time.monotonic()
    process = context.Process(target=_report, args=(sender, family, target, model))
    process.start()
    sender.close()
    try:
        told = receiver.poll(_SECONDS)
        found: Cell = receiver.recv() if told else Cell(family.name, target, f"It was not done after {_SECONDS} s.")
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        found = Cell(family.name, target, f"The process ended with {how}.")
    process.kill()
    process.join()
    return replace(found, seconds=round(time.monotonic() - started, 1))


def budgets(family: Family, target: str, folder: Path) -> list[Budget]:
    """Return budgets that leave the language model between 4 and 16 bits for each weight; what else there is stays as it is."""
    language, rest = 0, 0
    with safe_open(folder / "model.safetensors", "np") as tensors:
        for name in tensors.keys():  # noqa: SIM118
            n_bytes = 2 * int(np.prod(tensors.get_slice(name).get_shape()))
            if family.text is not None and any(word in name for word in _OTHER_MEDIA):
                rest += n_bytes
            else:
                language += n_bytes
    kept = _REST_BYTES + (0 if target == "llama.cpp" else rest)
    return [bw.parse_budget(f"{int(share * language) + kept}B") for share in _SHARES]


def _report(sender: Connection, family: Family, target: str, model: str) -> None:
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        sender.send(cell(family, target, model))


def cell(family: Family, target: str, model: str) -> Cell:
    """Fit the family's `model` to `target` in this process."""
    with tempfile.TemporaryDirectory() as out:
        try:
            settings = bw.Settings(model, target=target, formats=FORMATS[target], **_SHAPE)
            found = _fit(settings, budgets(family, target, Path(split_name(model)[0])), Path(out))
        except BitwrightError as error:
            folder = str(Path(split_name(model)[0]).parent)
            return Cell(family.name, target, str(error).replace(model, family.name).replace(f"{folder}{os.sep}", "").replace(out, "OUT"))
        except Exception as error:  # a fault, which the matrix has to show
            place = traceback.extract_tb(error.__traceback__)[-1]
            return Cell(family.name, target, f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")
        gap = next((row[2] for row in found.check.rows if "same weights" in row[0]), "")
        return Cell(family.name, target, " ".join(found.check.broken), found.plan.size_bytes, _written_bytes(found.model), gap)


def _fit(settings: bw.Settings, limits: list[Budget], out: Path) -> Fitted:
    by = bw.Search(bw.method_named("auto"), evaluations=0)
    try:
        return bw.fit(settings, limits[0], out / "fit", by=by)
    except BudgetError:
        return bw.fit(settings, limits[1], out / "fit", by=by)


def _written_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
