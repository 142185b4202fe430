"""Rounding of a plan: requantized codes, or a file of saved codes if they depend on calibration text."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from bitwright.compress import needs_moments, pin_codes
from bitwright.pipeline.run import CODES, LEVELS, Run
from bitwright.pipeline.shipping import shipped_folder
from bitwright.spaces import ABSENT, Kept, RequantizedCodes
from bitwright.written_files import digest


def rounding_of(run: Run, formats: Mapping[str, str]) -> RequantizedCodes | Kept:
    """Return the rounding of a plan of `formats` (tensor → format) as it was measured. Codes that depend on calibration text (GPTQ) cannot be
    reproduced, and are saved in the run folder, once.

    Raises:
        RunError: the packed tensors to save are gone.
        OutputError: the file cannot be written.
    """
    settings = run.settings
    searched, shipped = settings.rounding, settings.shipped
    if not (settings.ships_sequentially or needs_moments(shipped)):
        return RequantizedCodes(searched=searched, shipped=shipped)
    path = _saved_codes(run, formats, folder=shipped_folder(run, formats) if settings.requantizes else run.folder / LEVELS)
    return Kept(searched=searched, shipped=shipped, path=str(path.absolute()), sha256=digest(path))


def _saved_codes(run: Run, formats: Mapping[str, str], *, folder: Path) -> Path:
    """Write the packed tensors in `folder` whose format differs from the source's to one file, and return its path."""
    stored = {tensor.name: tensor.stored for unit in run.prices.space.units for tensor in unit.tensors}
    pairs = [(tensor, form) for tensor, form in formats.items() if form not in (*ABSENT, stored[tensor])]
    name = hashlib.sha256(repr((run.settings.shipped, pairs)).encode()).hexdigest()[:16]
    path = run.folder / CODES / f"{name}.safetensors"
    key = f"{CODES}/{path.name}"
    if not (run.store.has_text(key) and path.is_file() and digest(path) == run.store.text(key)):
        pin_codes(path, folder, pairs)
        run.store.put_text(key, digest(path))
    return path
