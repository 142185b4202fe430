"""From what a user calls a model to a model that can be measured: a GGUF file, a Hugging Face folder or a hub name.

Only safetensors and GGUF are read: no pickle is loaded and no code of a model is run.
"""

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from bitwright.compress.architectures import bind, lay_out
from bitwright.compress.gguf_file import GgufSource
from bitwright.compress.gguf_metadata import require_alike
from bitwright.compress.gguf_tokenizer import restore_pre_tokenizer
from bitwright.compress.hugging_face import HuggingFaceSource
from bitwright.compress.model import Model
from bitwright.compress.source import Source
from bitwright.errors import ModelError

_ROPE_FACTORS = "rope_freqs.weight"  # no parameter of the module: computed from its configuration
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
_NOT_CAUSAL = "MODEL must be a causal language model that transformers can load; {path} is not: {reason}"
_UNLOADABLE = (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, ImportError, NotImplementedError)


@dataclass(frozen=True)
class _Loaded:
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def open_source(name: str) -> Source:
    """The tensors of a model, without a module to measure where the model is a GGUF file.

    Raises:
        ModelError: no such model, or not one that can be read.
    """
    path = _located(name)
    if path.is_dir():
        return _folder_source(name, path, _from_folder(path))
    return GgufSource(path)


def load(name: str, device: str = "cpu") -> Model:
    """The model in float32 on `device`, its module checked weight by weight against the engine's tensors.

    Raises:
        ModelError: no such model, not a causal language model, or an architecture that is not known.
    """
    path = _located(name)
    if path.is_dir():
        loaded = _from_folder(path)
        source: Source = _folder_source(name, path, loaded)
    else:
        source = GgufSource(path)
        loaded = _from_gguf(path)
        require_alike(loaded.module.config, source.metadata, [tensor.name for tensor in source.tensors])
        restore_pre_tokenizer(loaded.tokenizer, _pre_tokenizer(source))
    module = loaded.module.requires_grad_(False)
    module.train(mode=False)
    pieces = bind(module, source.architecture)
    if not path.is_dir():
        _require_same(source, module)
    torch.nn.Module.to(module, device=torch.device(device))
    return Model(module, loaded.tokenizer, source, pieces)


def _located(name: str) -> Path:
    path = Path(name)
    if path.exists():
        return path
    if not _HUB_NAME.fullmatch(name) or path.suffix == ".gguf":
        raise ModelError(f"MODEL must be a GGUF file, a model folder or a hub name such as Qwen/Qwen3-4B; '{name}' is none of them: check the path.")
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES))
    except (OSError, ValueError) as error:
        raise ModelError(f"There is no file or folder '{name}', and the hub gave no model of that name: check the name and the network.") from error


def _folder_source(name: str, path: Path, loaded: _Loaded) -> Source:
    return HuggingFaceSource(name, loaded.module, tokenizer=loaded.tokenizer, folder=path)


def _from_folder(path: Path) -> _Loaded:
    if not (path / "config.json").is_file():
        raise ModelError(f"A model folder must hold a config.json; {path} does not: give the folder that `save_pretrained` wrote.")
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"A model folder must hold its weights as .safetensors (a pickle can run code); {path} does not: save them as safetensors.")
    with _quiet():
        try:
            config = AutoConfig.from_pretrained(path)
            module = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32, use_safetensors=True)
            return _Loaded(module, AutoTokenizer.from_pretrained(path))
        except _UNLOADABLE as error:
            raise ModelError(_NOT_CAUSAL.format(path=path, reason=_first_line(error))) from error


def _from_gguf(path: Path) -> _Loaded:
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    with _quiet():
        try:
            module = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True))
            return _Loaded(module, AutoTokenizer.from_pretrained(**where))
        except _UNLOADABLE as error:
            raise ModelError(_NOT_CAUSAL.format(path=path, reason=_first_line(error))) from error


def _require_same(source: Source, module: PreTrainedModel) -> None:
    """Refuse to measure a module whose weights are not those of the file, one for one."""
    laid_out = lay_out(module, source.architecture)
    unlike = {tensor.name for tensor in source.tensors} - {_ROPE_FACTORS} ^ set(laid_out)
    for tensor in source.tensors:
        if tensor.name in laid_out and not unlike:
            weights = [module.get_parameter(piece.parameter) for piece in laid_out[tensor.name]]
            rows = torch.cat([piece.to_engine(weight).reshape(-1) for piece, weight in zip(laid_out[tensor.name], weights, strict=True)])
            if not _equal(rows, torch.from_numpy(source.read(tensor)).reshape(-1)):
                unlike.add(tensor.name)
    if unlike:
        raise ModelError(
            f"The module's weights must equal the file's; {', '.join(sorted(unlike)[:3])} of {source.name} differ, so transformers and llama.cpp "
            "would run two different models: give the model in the form of Hugging Face instead."
        )


def _equal(rows: torch.Tensor, stored: torch.Tensor) -> bool:
    """Whether weights are the same; Gemma's norms are stored with 1 added and read with 1 taken away, which rounds."""
    return torch.equal(rows, stored) or bool(torch.isclose(rows + 1, stored, atol=1e-5).all())


def _pre_tokenizer(source: Source) -> str:
    return next((str(entry.value) for entry in source.metadata if entry.key == "tokenizer.ggml.pre"), "")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") + "."


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' progress bars, hints and warnings to itself while a model is loaded."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
