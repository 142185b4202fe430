"""The channels of every feed-forward part in the order of what they give, the most first: the same model, ready to be cut.

A gated feed-forward part is a sum over its channels, so their order is free: the rows of gate and up and the columns of down are put in another
order together, and what is computed stays the same but for the order of a sum. Then consecutive channels are alike in what they give, and a target
that cuts a feed-forward part into consecutive channels (`native-channels`) can give few bits, or none, to those that give little. Energies are
CAMERA's (`predictors/sensitivity/activations/micro_experts.py`).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bitwright.compress import HuggingFaceSource, Model, load, open_headers, rows_in_memory
from bitwright.engines import MODEL, N_CONTEXTS, NATIVE, NATIVE_CHANNELS, CheckpointSource, Recipe, as_held, model_as_held, plain, prefixes
from bitwright.errors import BrokenPromiseError, ModelError
from bitwright.objectives import Shape, Tokens, next_token_log_probabilities
from bitwright.pipeline.before_loading import require_lengths, require_texts
from bitwright.pipeline.calibration_mix import parts_of, shares_in
from bitwright.pipeline.outputs import require_folder
from bitwright.pipeline.results import require_results
from bitwright.pipeline.settings import SELF
from bitwright.pipeline.workbench import require_device, tell_missing, text_named
from bitwright.predictors import channel_energies
from bitwright.progress import Progress, Silent
from bitwright.ranges import ORDERING_SEQUENCES, SEED, SEQUENCE_LENGTH

_SAME_NATS = 1e-4  # per token; a sum in another order is off by far less
_N_SHARES = 4
_DOWN, _ROWS = "ffn_down", ("ffn_gate", "ffn_up")


@dataclass(frozen=True)
class Ordered:
    """What became of a model: `n_parts` feed-forward parts in order, whose quarters of channels have the `shares` of the energy on average, the
    first the most, and the divergence from the model as it was, in nats per token.
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
) -> Ordered:
    """Write the model that a user calls `name` to the folder `out` with its channels in the order of their energies on the calibration text.

    Raises:
        UserError: the model or the text cannot be used; the model is a file of GGUF, or its feed-forward parts have biases.
        OutputError: the folder cannot be written, is the model or a text itself, or holds what Bitwright did not write.
        BrokenPromiseError: what was written computes something else.
    """
    progress = progress or Silent()
    ORDERING_SEQUENCES.require(n_sequences)
    SEQUENCE_LENGTH.require(length)
    SEED.require(seed)
    require_device(device)
    require_results({out: MODEL}, [Path(name), *(Path(share.name) for share in shares_in(calibration) if share.name != SELF)])
    require_folder(out)
    require_texts(calibration, "", text_column)
    require_lengths(open_headers(name), length, length, NATIVE.name)
    model = load(name, device)
    source = model.source
    if not isinstance(source, HuggingFaceSource):
        raise ModelError(f"Channels are put in order in a folder as transformers saves it; {name} is a file of GGUF: give the model's folder.")
    as_held(source, NATIVE_CHANNELS)  # refuses what cannot be cut
    tokens = _tokens(model, calibration, n_sequences, length, seed=seed, column=text_column, progress=progress)
    contexts = prefixes(tokens.ids, N_CONTEXTS)
    before = next_token_log_probabilities(model, contexts)
    energies = channel_energies(model_as_held(model, NATIVE), tokens, progress=progress)
    _permute(model, energies)
    after = next_token_log_probabilities(model, contexts)
    nats = float((np.exp(before) * (before - after)).sum(axis=-1).mean())
    if nats > _SAME_NATS:
        raise BrokenPromiseError(f"A model must stay the same when its channels are put in order; it is {nats:.4f} nats/token off: please report it.")
    _write(name, model, source, out, progress)
    return Ordered(len(energies), _shares(energies), nats)


def _tokens(model: Model, calibration: str, n_sequences: int, length: int, *, seed: int, column: str, progress: Progress) -> Tokens:
    shares = shares_in(calibration)
    shapes = [Shape(n, 0, length) for n in parts_of(n_sequences, shares)]
    texts = []
    for share, shape in zip(shares, shapes, strict=True):
        found = text_named(share.name, model, shape, seed=seed, progress=progress, column=column)
        tell_missing(found, shape, progress)
        texts.append(found.calibration)
    return Tokens(np.concatenate([text.ids for text in texts]), ", ".join(text.text for text in texts))


@torch.no_grad()
def _permute(model: Model, energies: dict[str, NDArray[np.float64]]) -> None:
    """Put the channels of the module's feed-forward parts in the order of falling energy, those of equal energy as they are."""
    held = model_as_held(model, NATIVE)
    for down, of_channels in energies.items():
        order = torch.from_numpy(np.argsort(-of_channels, kind="stable"))
        for tensor in (down, *(down.replace(_DOWN, role) for role in _ROWS)):
            (piece,) = held.pieces[tensor]
            parameter = model.module.get_parameter(piece.parameter)
            rows = piece.to_engine(parameter)
            piece.from_engine(parameter, rows[:, order] if tensor == down else rows[order])


def _write(name: str, model: Model, source: HuggingFaceSource, out: Path, progress: Progress) -> None:
    ordered = HuggingFaceSource(name, model.module, rows_in_memory(model.module), tokenizer=model.tokenizer, folder=source.folder)

    def reload(folder: Path, _: CheckpointSource) -> None:
        found = load(str(folder)).source
        wrong = next((tensor.name for tensor in ordered.tensors if not np.array_equal(found.read(tensor), ordered.read(tensor))), "")
        if wrong:
            raise BrokenPromiseError(f"Every weight must load as it was written; {wrong} does not, and nothing was kept: please report this.")

    with progress.stage(f"Writing {out.name}", 1) as advance:
        plain(name, reload).write(out, Recipe(ordered, {}), ordered.stored)
        advance(1)


def _shares(energies: dict[str, NDArray[np.float64]]) -> tuple[float, ...]:
    """The share of energy in each quarter of a part's channels in order, over the parts that are used at all."""
    used = [np.sort(of_channels)[::-1] / of_channels.sum() for of_channels in energies.values() if of_channels.any()]
    quarters = [[part.sum() for part in np.array_split(of_channels, _N_SHARES)] for of_channels in used]
    return tuple(np.mean(quarters, axis=0).tolist())
