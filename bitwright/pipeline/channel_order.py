"""Permute the channels of every feed-forward part by falling energy, for `--target native-channels`. The model computes the same.

A gated feed-forward part is a sum over its channels, so permuting the rows of gate and up together with the columns of down changes nothing but the
order of summation. Afterwards, consecutive channels contribute about equally, and a target that cuts a feed-forward part into groups of consecutive
channels (`native-channels`) can give few bits, or none, to those that contribute little. Energies are CAMERA's
(`predictors/sensitivity/activations/micro_experts.py`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import MODULE_VIEW, Model, ModuleSource, load, open_headers, open_source, rows_in_memory
from bitwright.engines import MODEL, N_CONTEXTS, NATIVE, NATIVE_CHANNELS, CheckpointSource, Recipe, as_held, model_as_held, plain, prefixes
from bitwright.errors import BrokenPromiseError, ModelError
from bitwright.objectives import Shape, Tokens, next_token_log_probabilities
from bitwright.pipeline.before_loading import require_lengths, require_sequences, require_texts
from bitwright.pipeline.calibration.mixture import shares_in, shares_of
from bitwright.pipeline.loaded_run import report_missing, require_device, text_named
from bitwright.pipeline.results import require_folder, require_results
from bitwright.pipeline.settings import SELF
from bitwright.predictors import channel_energies
from bitwright.progress import Progress, Silent
from bitwright.ranges import ORDERING_SEQUENCES, SEED, SEQUENCE_LENGTH
from bitwright.spaces import role_of

_SAME_NATS = 1e-4  # per token; another order of summation differs by far less
_N_SHARES = 4
_ROWS = ("ffn_gate", "ffn_up")


@dataclass(frozen=True)
class PermutedChannels:
    """Result of `order_channels`: the number of permuted feed-forward parts, the average shares of energy in each quarter of their channels, largest
    first, and the divergence from the original model in nats per token.
    """

    n_parts: int
    shares: tuple[float, ...]
    nats_per_token: float


def order_channels(
    name: str,
    calibration: str,
    out: Path,
    *,
    n_sequences: int = 32,
    length: int = 256,
    seed: int = 0,
    text_column: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
) -> PermutedChannels:
    """Write the model `name` to the folder `out` with its channels permuted by falling energy on the calibration text.

    Raises:
        UserError: the model or the text cannot be used; the model is a GGUF file, or its feed-forward parts have biases.
        OutputError: the folder cannot be written, is the model or a text itself, or holds files that Bitwright did not write.
        BrokenPromiseError: the permuted model computes something else.
    """
    progress = progress or Silent()
    ORDERING_SEQUENCES.require(n_sequences)
    SEQUENCE_LENGTH.require(length)
    SEED.require(seed)
    require_device(device)
    require_results({out: MODEL}, [Path(name), *(Path(share.name) for share in shares_in(calibration) if share.name != SELF)])
    require_folder(out)
    require_texts(calibration, "")
    outline = open_headers(name, MODULE_VIEW)
    require_lengths(outline, length, length, NATIVE.name)
    require_sequences(outline, calibration, "", Shape(n_sequences, 0, length), column=text_column)
    if Path(name).is_file():
        raise ModelError(f"Channels are sorted in a model folder as transformers saves it; {name} is a GGUF file: give the model's folder.")
    source = open_source(name, MODULE_VIEW)
    as_held(source, NATIVE_CHANNELS)  # raises if the model cannot be cut by channels
    model = load(name, device, view=MODULE_VIEW)
    tokens = _tokens(model, calibration, n_sequences, length, seed=seed, column=text_column, progress=progress)
    contexts = prefixes(tokens.ids, N_CONTEXTS)
    before = next_token_log_probabilities(model, contexts)
    energies = channel_energies(model_as_held(model, NATIVE), tokens, progress=progress)
    _permute(model, energies)
    after = next_token_log_probabilities(model, contexts)
    nats = float((np.exp(before) * (before - after)).sum(axis=-1).mean())
    if nats > _SAME_NATS:
        raise BrokenPromiseError(f"A model must stay the same when its channels are sorted; it is {nats:.4f} nats/token off: please report it.")
    _write(name, model, out, progress)
    return PermutedChannels(len(energies), _shares(energies), nats)


def _tokens(model: Model, calibration: str, n_sequences: int, length: int, *, seed: int, column: str, progress: Progress) -> Tokens:
    shares = shares_in(calibration)
    texts = []
    for share, shape in zip(shares, shares_of(shares, Shape(n_sequences, 0, length)), strict=True):
        found = text_named(share.name, model, shape, seed=seed, progress=progress, column=column)
        report_missing(found, shape, progress)
        texts.append(found.calibration)
    return Tokens(np.concatenate([text.ids for text in texts]), ", ".join(text.text for text in texts))


@torch.no_grad()
def _permute(model: Model, energies: dict[str, NDArray[np.float64]]) -> None:
    """Sort the channels of the module's feed-forward parts by falling energy, stably."""
    held = model_as_held(model, NATIVE)
    roles = {tensor.name: role_of(tensor) for tensor in held.tensors}
    for down, energy in energies.items():
        order = torch.from_numpy(np.argsort(-energy, kind="stable"))
        for tensor in (down, *(name for name in held.pieces if _part(name) == _part(down) and roles[name].startswith(_ROWS))):
            (piece,) = held.pieces[tensor]
            parameter = model.module.get_parameter(piece.parameter)
            rows = piece.to_engine(parameter)
            piece.from_engine(parameter, rows[:, order] if tensor == down else rows[order])


def _part(matrix: str) -> str:
    """Return the name of the feed-forward part that a matrix belongs to."""
    return matrix.removesuffix(".weight").rpartition(".")[0]


def _write(name: str, model: Model, out: Path, progress: Progress) -> None:
    ordered = ModuleSource(name, model.module, rows_in_memory(model.module))

    def reload(folder: Path, _: CheckpointSource) -> None:
        found = load(str(folder), view=MODULE_VIEW).source
        wrong = next((tensor.name for tensor in ordered.tensors if not np.array_equal(found.read(tensor), ordered.read(tensor))), "")
        if wrong:
            raise BrokenPromiseError(f"Every weight must load as it was written; {wrong} does not, and nothing was kept: please report this.")

    with progress.stage(f"Writing {out.name}", 1) as advance:
        plain(name, reload).write(out, Recipe(ordered, {}), ordered.stored)
        advance(1)


def _shares(energies: dict[str, NDArray[np.float64]]) -> tuple[float, ...]:
    """Return the mean share of energy in each quarter of a part's sorted channels, over the parts with any energy."""
    used = [np.sort(energy)[::-1] / energy.sum() for energy in energies.values() if energy.any()]
    quarters = [[part.sum() for part in np.array_split(energy, _N_SHARES)] for energy in used]
    return tuple(np.mean(quarters, axis=0).tolist())
