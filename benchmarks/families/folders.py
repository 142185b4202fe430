"""A family as a folder that transformers loads: random weights of a size at which every part of the model matters."""

import json
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from benchmarks.families.family import N_TOKENS, Family
from benchmarks.families.pieces import write_tokenizer

_GAIN = 1.5
_TINY, _SPREAD = 8, 0.25
_LENGTH = 48


def built(family: Family, seed: int = 0) -> PreTrainedModel:
    """Return the family's model in bfloat16."""
    config = AutoConfig.for_model(family.model_type, **family.config())
    kind = AutoModelForCausalLM if family.text is None else AutoModelForImageTextToText
    torch.manual_seed(seed)
    model: PreTrainedModel = kind.from_config(config, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(seed)
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    head = model.get_output_embeddings()
    if head is not None:
        embeddings.add(id(head.weight))
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() < 2:
                parameter.add_(_SPREAD * noise)
            elif id(parameter) in embeddings:
                parameter.copy_(family.deviation * parameter.shape[-1] ** -0.5 * noise)
            elif parameter.shape[-1] <= _TINY or parameter.shape[-2] == 1:  # convolutions and learned factors
                parameter.add_(_SPREAD * noise)
            else:
                parameter.copy_(_GAIN * _fan_in(parameter) ** -0.5 * noise)
        for name, values in model.named_buffers():
            if name.endswith("correction_bias"):
                values.copy_(0.1 * torch.randn(values.shape, generator=generator))
            elif name.endswith("tid2eid"):  # the experts of each token
                values.copy_(torch.randint(config.n_routed_experts, values.shape, generator=generator))
    for parameter in model.parameters():  # buffers, complex ones among them, stay as they are
        parameter.data = parameter.data.to(torch.bfloat16)
    return model


def _fan_in(parameter: torch.Tensor) -> int:
    """Stacks of experts are transposed in some families; their shorter side would be the larger step, so both are taken for it."""
    return parameter.shape[-1] if parameter.dim() == 2 else int((parameter.shape[-1] * parameter.shape[-2]) ** 0.5)


def write_folder(family: Family, folder: Path) -> None:
    """Write the family's model and its tokenizer into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    built(family).save_pretrained(folder)
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text("utf-8")), **family.stored}, indent=2), encoding="utf-8")
    write_tokenizer(family.pieces, folder)


def entropy(family: Family, folder: Path) -> float:
    """Return the mean entropy in nats per token of the model that is loaded from `folder`, after random tokens."""
    kind = AutoModelForCausalLM if family.text is None else AutoModelForImageTextToText
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(4, N_TOKENS - 40, (1, _LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logprobs = model(input_ids=ids).logits[0, :, :N_TOKENS].log_softmax(-1)
    return float(-(logprobs.exp() * logprobs).sum(-1).mean())
