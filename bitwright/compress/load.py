"""From what a user calls a model to a model that can be measured: a GGUF file, a Hugging Face folder or a hub name.

Only safetensors and GGUF are read: no pickle is loaded and no code of a model is run.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from bitwright.compress.architectures import bind, lay_out, recognise, weights_of
from bitwright.compress.checkpoint import Checkpoint
from bitwright.compress.extremes import require_sound
from bitwright.compress.gguf_file import GgufSource
from bitwright.compress.gguf_metadata import require_alike
from bitwright.compress.gguf_tokenizer import restore_pre_tokenizer
from bitwright.compress.hub import NO_CODE, configuration, located, quantization_of, quietly
from bitwright.compress.hugging_face import HuggingFaceSource, rows_in_memory
from bitwright.compress.model import Model
from bitwright.compress.source import Source
from bitwright.errors import ModelError

_ROPE_FACTORS = "rope_freqs.weight"  # no parameter of the module: computed from its configuration


@dataclass(frozen=True)
class _Loaded:
    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def open_source(name: str) -> Source:
    """The tensors of a model, without a module to measure: weights are read from the files when they are asked for.

    Raises:
        ModelError: no such model, or not one that can be read.
    """
    path = located(name)
    return _lazy_source(name, path) if path.is_dir() else GgufSource(path)


def open_skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """The module that a configuration describes, on the meta device: shapes without weights."""
    with torch.device("meta"):
        module: Any = AutoModelForCausalLM.from_config(config, **NO_CODE)  # type: ignore[no-untyped-call]
    skeleton: PreTrainedModel = module
    return skeleton


def load(name: str, device: str = "cpu") -> Model:
    """The model in float32 on `device`, its module checked weight by weight against the engine's tensors.

    Raises:
        ModelError: no such model, not a causal language model, an architecture that is not known, or weights that are no numbers.
    """
    path = located(name)
    if path.is_dir():
        loaded = _from_folder(path)
        source: Source = _folder_source(name, path, loaded)
    else:
        source = GgufSource(path)
        loaded = _from_gguf(path)
        require_alike(loaded.module.config, source.metadata, [tensor.name for tensor in source.tensors])
        restore_pre_tokenizer(loaded.tokenizer, pre_tokenizer(source))
    module = loaded.module.requires_grad_(False)
    module.train(mode=False)
    pieces = bind(module, source.architecture)
    if not path.is_dir():
        _require_same(source, module)
    torch.nn.Module.to(module, device=torch.device(device))
    model = Model(module, loaded.tokenizer, source, pieces)
    require_sound(model)
    return model


def _folder_source(name: str, path: Path, loaded: _Loaded) -> Source:
    return HuggingFaceSource(name, loaded.module, rows_in_memory(loaded.module), tokenizer=loaded.tokenizer, folder=path)


def _lazy_source(name: str, path: Path) -> Source:
    config = configuration(path)
    module, checkpoint = _on_disk(config, path)
    with quietly(path):
        tokenizer = AutoTokenizer.from_pretrained(path, **NO_CODE)
    return HuggingFaceSource(name, module, checkpoint.rows, tokenizer=tokenizer, folder=path)


def _on_disk(config: PreTrainedConfig, path: Path) -> tuple[PreTrainedModel, Checkpoint]:
    """The model's skeleton and the folder's weights, which hold all that it needs."""
    with quietly(path):
        module = open_skeleton(config)
    checkpoint = Checkpoint(path)
    checkpoint.require(lay_out(module, recognise(config).name), weights_of(module))
    return module, checkpoint


def _from_folder(path: Path) -> _Loaded:
    config = configuration(path)
    _, checkpoint = _on_disk(config, path)
    if quantization_of(path):  # transformers would read the codes without their scales
        with quietly(path):
            return _Loaded(_filled(config, checkpoint), AutoTokenizer.from_pretrained(path, **NO_CODE))
    # What is missing or of another shape transformers replaces by random numbers; here it is looked for afterwards.
    settings: dict[str, Any] = {"config": config, "use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with quietly(path):
        both: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **settings, **NO_CODE)
        tokenizer = AutoTokenizer.from_pretrained(path, **NO_CODE)
    module, found = both
    wrong = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if wrong:
        raise ModelError(
            f"A model folder must hold every weight in the shape that its configuration says; {path} does not for {', '.join(wrong[:3])}: "
            "download or save the model again."
        )
    return _Loaded(module, tokenizer)


@torch.no_grad()
def _filled(config: PreTrainedConfig, checkpoint: Checkpoint) -> PreTrainedModel:
    """The module that a configuration describes, with the weights of a checkpoint."""
    module: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **NO_CODE)  # type: ignore[no-untyped-call]
    filled: PreTrainedModel = module
    weights = weights_of(filled)
    for piece in (piece for pieces in lay_out(filled, recognise(config).name).values() for piece in pieces):
        parameter = weights[piece.parameter]
        rows = checkpoint.rows(piece)
        piece.from_engine(parameter, rows[:, 0] if parameter.dim() == 1 else rows)
    return filled


def _from_gguf(path: Path) -> _Loaded:
    where: dict[str, Any] = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, **NO_CODE}
    with quietly(path):
        module = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True))
        return _Loaded(module, AutoTokenizer.from_pretrained(**where))


def _require_same(source: Source, module: PreTrainedModel) -> None:
    """Refuse to measure a module whose weights are not those of the file, one for one."""
    laid_out = lay_out(module, source.architecture)
    unlike = {tensor.name for tensor in source.tensors} - {_ROPE_FACTORS} ^ set(laid_out)
    for tensor in source.tensors:
        if tensor.name in laid_out and not unlike:
            weights = [weights_of(module)[piece.parameter] for piece in laid_out[tensor.name]]
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


def pre_tokenizer(source: Source) -> str:
    """How the file says that texts are cut before they are tokenized, empty where it does not."""
    return next((str(entry.value) for entry in source.metadata if entry.key == "tokenizer.ggml.pre"), "")
