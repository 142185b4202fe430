"""Loading of models to measure, from a GGUF file, a Hugging Face folder or a hub name.

Only safetensors and GGUF are read: no pickle is loaded and no code of a model is run.
"""

import torch
from transformers import PreTrainedModel

from bitwright.compress.models.architectures import architecture_of, bind, lay_out, weights_of, window_ignored
from bitwright.compress.models.checkpoints.hugging_face import metadata_of, tensors_of
from bitwright.compress.models.extremes import require_sound
from bitwright.compress.models.gguf.gguf_metadata import require_alike
from bitwright.compress.models.headers import Headers, Outline
from bitwright.compress.models.model import Model
from bitwright.compress.models.opening import Checkpoint, GgufCheckpoint, open_checkpoint
from bitwright.compress.models.source import Source
from bitwright.errors import ModelError

_ROPE_FACTORS = "rope_freqs.weight"  # not a parameter of the module: computed from its configuration


def open_source(name: str) -> Source:
    """Open the tensors of a model without a torch module; weights are read from the files on demand.

    Raises:
        ModelError: no such model, or not one that can be read.
    """
    return open_checkpoint(name).source


def load(name: str, device: str = "cpu") -> Model:
    """Load a model in float32 on `device`, with every weight of its module checked against the engine's tensors.

    Raises:
        ModelError: no such model, not a causal language model, an unsupported architecture, or weights that are NaN.
    """
    checkpoint = open_checkpoint(name)
    source, tokenizer = checkpoint.source, checkpoint.tokenizer
    module = checkpoint.module().requires_grad_(False)
    module.train(mode=False)
    if isinstance(checkpoint, GgufCheckpoint):
        require_alike(module.config, source.metadata, [tensor.name for tensor in source.tensors])
    pieces = bind(module, source.architecture)
    if isinstance(checkpoint, GgufCheckpoint):
        _require_same(source, module)
    torch.nn.Module.to(module, device=torch.device(device))
    model = Model(module, tokenizer, source, pieces)
    require_sound(model)
    return model


def open_headers(name: str) -> Outline:
    """Read the headers of a model, without its weights.

    Raises:
        ModelError: no such model, or not one that can be read.
    """
    checkpoint = open_checkpoint(name)
    least, most, window = _bounds(name, checkpoint)
    module = checkpoint.skeleton
    n_rows = module.get_input_embeddings().get_parameter("weight").shape[0]
    return Outline(least, most, window, checkpoint.tokenizer, bind(module, least.architecture), n_rows)


def _bounds(name: str, checkpoint: Checkpoint) -> tuple[Headers, Headers, int]:
    """Return the smallest and largest headers of a model, and the sliding window that llama.cpp ignores."""
    if isinstance(checkpoint, GgufCheckpoint):
        file = checkpoint.source
        sizes = {tensor.name: file.stored_bytes(tensor) for tensor in file.tensors}
        exact = Headers(name, file.architecture, file.metadata, file.tensors, sizes=sizes)
        return exact, exact, 0  # loading refuses a GGUF file whose window transformers would apply
    module = checkpoint.skeleton
    widest = "F32" if checkpoint.shards.dtypes & {"F32", "F64"} else "BF16"
    least, most = (
        Headers(
            name,
            architecture_of(checkpoint.config).name,
            metadata_of(name, module, checkpoint.tokenizer, folder=checkpoint.path, stored=stored),
            tensors_of(module, stored),
            vectors=stored,
        )
        for stored in ("BF16", widest)
    )
    return least, most, window_ignored(checkpoint.config)


def _require_same(source: Source, module: PreTrainedModel) -> None:
    """Require that the weights of the module equal those of the file, one by one."""
    laid_out = lay_out(module, source.architecture)
    different = {tensor.name for tensor in source.tensors} - {_ROPE_FACTORS} ^ set(laid_out)
    for tensor in source.tensors:
        if tensor.name in laid_out and not different:
            weights = [weights_of(module)[piece.parameter] for piece in laid_out[tensor.name]]
            rows = torch.cat([piece.to_engine(weight).reshape(-1) for piece, weight in zip(laid_out[tensor.name], weights, strict=True)])
            if not _equal(rows, torch.from_numpy(source.read(tensor)).reshape(-1)):
                different.add(tensor.name)
    if different:
        raise ModelError(
            f"The module's weights must equal the file's; {', '.join(sorted(different)[:3])} of {source.name} differ, so transformers and llama.cpp "
            "would run two different models: give the model in the form of Hugging Face instead."
        )


def _equal(rows: torch.Tensor, stored: torch.Tensor) -> bool:
    """Return whether weights are equal; Gemma's norms are stored with 1 added, which rounds when it is subtracted again."""
    return torch.equal(rows, stored) or bool(torch.isclose(rows + 1, stored, atol=1e-5).all())
