"""Folders of quantized checkpoints, written by loops over the published layouts, beside the weights that they stand for."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor as Torch

from bitwright.compress.models.opening import FolderCheckpoint, open_checkpoint

WHOLE = "model.safetensors"
#: of a matrix, the tensors of its layer by the last part of their names, and the matrix that they stand for
Coded = tuple[Mapping[str, Torch], Torch]


def quantized(source: Path, folder: Path, settings: Mapping[str, object], code: Callable[[Torch], Coded]) -> dict[str, Torch]:
    """Copy a model to `folder` with the matrices of its blocks in codes; return the weights by name that it stands for."""
    shutil.copytree(source, folder)
    weights = load_file(source / WHOLE)
    stored, meant = dict(weights), dict(weights)
    for name, weight in weights.items():
        if weight.dim() == 2 and ".layers." in name and "gate.weight" not in name:
            parts, meant[name] = code(weight.float())
            del stored[name]
            stored |= {f"{name.removesuffix('.weight')}.{role}": part.contiguous().clone() for role, part in parts.items()}
    save_file(stored, folder / WHOLE, {"format": "pt"})
    change(folder, quantization_config=dict(settings))
    return meant


def change(folder: Path, **settings: object) -> None:
    """Change the configuration of a folder."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | settings), encoding="utf-8")


def change_tensors(folder: Path, **tensors: Torch | None) -> None:
    """Change tensors of a folder; those that are None are removed."""
    changed = load_file(folder / WHOLE) | tensors
    save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, folder / WHOLE, {"format": "pt"})


def opened(folder: Path) -> FolderCheckpoint:
    """The opened folder."""
    found = open_checkpoint(str(folder))
    assert isinstance(found, FolderCheckpoint)
    return found


def assert_stands_for(folder: Path, meant: Mapping[str, Torch]) -> None:
    """Every weight of a folder without experts is read as the one that it stands for, whole and in pieces."""
    shards = opened(folder).shards
    for name, weight in meant.items():
        assert torch.equal(shards.parameter(name), weight.float()), name


def rounded(weight: Torch, bits: int, group: int) -> tuple[Torch, Torch, Torch]:
    """Asymmetric codes `(n_rows, n_columns)`, scales in float16 and zeros `(n_rows, n_groups)` of groups of columns, by rounding to nearest."""
    groups = weight.reshape(len(weight), -1, group)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scales = ((high - low) / (2**bits - 1)).half()
    zeros = (-low / scales.float()).round().clamp(1, 2**bits - 1)
    codes = (groups / scales.float().unsqueeze(-1) + zeros.unsqueeze(-1)).round().clamp(0, 2**bits - 1)
    return codes.reshape(weight.shape).int(), scales, zeros.int()


def packed(codes: Torch, bits: int) -> Torch:
    """Codes `(n, n_codes)` as a stream of bits, the lowest first, in words `(n, n_words)`."""
    words = torch.zeros(len(codes), codes.shape[1] * bits // 32, dtype=torch.int64)
    for i in range(codes.shape[1]):
        for bit in range(bits):
            place = i * bits + bit
            words[:, place // 32] |= ((codes[:, i].long() >> bit) & 1) << (place % 32)
    return words.int() if int(words.max()) < 2**31 else torch.where(words >= 2**31, words - 2**32, words).int()
