"""GGUF metadata of a tokenizer, converted from its `tokenizer.json`, so that llama.cpp and transformers tokenize alike.

llama.cpp hard-codes the regular expressions of pre-tokenizers and the file only names one (`llm_tokenizer_bpe` in `llama-vocab.cpp`). Its own
converter finds the name by hashing the tokens of a test string; here it is looked up by the expressions, and an unknown one is refused. SentencePiece
vocabularies carry a score per token instead of merges: the highest score merges first. One difference remains: before a text that begins with a
space, llama.cpp adds another space and transformers' Llama tokenizer does not.
"""

import json
import re
from pathlib import Path
from typing import Any

from gguf import GGUFValueType, TokenType
from sentencepiece import SentencePieceProcessor
from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bitwright.compress.models.gguf.gguf_metadata import array, scalar
from bitwright.compress.models.source import KeyValue
from bitwright.errors import ModelError, shown

_U32, _I32, _F32, _BOOL, _STRING = (
    GGUFValueType.UINT32,
    GGUFValueType.INT32,
    GGUFValueType.FLOAT32,
    GGUFValueType.BOOL,
    GGUFValueType.STRING,
)

_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

#: llama.cpp's name → the regular expressions that split text, in order, if they are not named steps of the `tokenizers` library
EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "llama-bpe": (_LLAMA3,),
    "smaug-bpe": (_LLAMA3,),
    "qwen2": (_LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),),
    "tekken": (_TEKKEN,),
    "deepseek-v3": (r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", _DEEPSEEK3),
}

#: (steps of the pre-tokenizer, whether a word of the vocabulary skips the merges) → llama.cpp's name
PRE_TOKENIZERS: dict[tuple[tuple[str, ...], bool], str] = {
    (("words",), False): "gpt-2",
    (("digits", "words"), False): "smollm",
    **{((*expressions, "bytes"), name in ("llama-bpe", "tekken")): name for name, expressions in EXPRESSIONS.items()},
}

_CONTROL_TEXT = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>")  # command-r, deepseek and gemma do not mark theirs as special
_BYTE_TEXT = re.compile(r"<0x[0-9A-F]{2}>")
_UNREACHABLE = -1e6  # score of a token that is not the result of a merge
_SPACE = "▁"


def restore_pre_tokenizer(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Set the pre-tokenizer that llama.cpp calls `name`, which transformers drops when it reads a tokenizer from a GGUF file.

    Unknown names leave the tokenizer unchanged.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return
    if name in EXPRESSIONS:
        splits = [Split(Regex(expression), behavior="isolated") for expression in EXPRESSIONS[name]]
        steps = [*splits, ByteLevel(add_prefix_space=False, use_regex=False)]
    elif name == "smollm":
        steps = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    else:
        return
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(steps)


def tokenizer_entries(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, *, folder: Path, n_tokens: int) -> tuple[KeyValue, ...]:
    """Build the tokenizer's metadata: vocabulary, merges or scores, pre-tokenizer, special tokens and chat template.

    `folder` may hold the `tokenizer.model` of SentencePiece, whose scores are then used. `n_tokens` is the number of rows of the token embedding:
    rows without a token get an unused one, and tokens without a row are left out.

    Raises:
        ModelError: llama.cpp has no counterpart of the tokenizer, or it is not supported here.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(
            f"A tokenizer must be described by a tokenizer.json; '{type(tokenizer).__name__}' is not: save the model's fast tokenizer beside it."
        )
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model["type"] != "BPE":
        raise ModelError(f"A tokenizer must merge pairs (BPE); this one is '{model['type']}': choose a model with such a tokenizer.")
    texts, types = _vocabulary(described, n_tokens)
    if not model["byte_fallback"]:
        kind = _byte_level(described, texts, types)
    else:
        types = [int(TokenType.UNKNOWN) if text == tokenizer.unk_token else given for text, given in zip(texts, types, strict=True)]
        kind = _sentencepiece(described, texts, types, scores=_scores(described, folder / "tokenizer.model"))
    return (*kind, *_special(tokenizer, config), *_chat_template(tokenizer))


def _byte_level(described: dict[str, Any], texts: list[str], types: list[int]) -> list[KeyValue]:
    return [
        scalar("tokenizer.ggml.model", "gpt2", _STRING),
        scalar("tokenizer.ggml.pre", _pre_tokenizer(described), _STRING),
        array("tokenizer.ggml.tokens", texts, _STRING),
        array("tokenizer.ggml.token_type", types, _I32),
        array("tokenizer.ggml.merges", [f"{left} {right}" for left, right in described["model"]["merges"]], _STRING),
    ]


def _sentencepiece(described: dict[str, Any], texts: list[str], types: list[int], *, scores: dict[str, float]) -> list[KeyValue]:
    return [
        scalar("tokenizer.ggml.model", "llama", _STRING),
        scalar("tokenizer.ggml.pre", "default", _STRING),
        scalar("tokenizer.ggml.add_space_prefix", _space_prefix(described), _BOOL),
        array("tokenizer.ggml.tokens", texts, _STRING),
        array("tokenizer.ggml.scores", [scores.get(text, _UNREACHABLE) for text in texts], _F32),
        array("tokenizer.ggml.token_type", types, _I32),
    ]


def _vocabulary(described: dict[str, Any], n_tokens: int) -> tuple[list[str], list[int]]:
    """Return texts and types `(n_tokens,)` of all tokens, by id."""
    texts, types = [f"[PAD{i}]" for i in range(n_tokens)], [int(TokenType.UNUSED)] * n_tokens
    has_bytes = described["model"]["byte_fallback"]
    for text, i in described["model"]["vocab"].items():
        if i < n_tokens:
            texts[i] = text
            types[i] = int(TokenType.BYTE if has_bytes and _BYTE_TEXT.fullmatch(text) else TokenType.NORMAL)
    for token in described["added_tokens"]:
        i, text = token["id"], token["content"]
        if i < n_tokens:
            control = token["special"] or bool(_CONTROL_TEXT.fullmatch(text))
            # llama.cpp matches user-defined tokens before it replaces spaces as SentencePiece does
            texts[i] = text if control else text.replace(_SPACE, " ")
            types[i] = int(TokenType.CONTROL if control else TokenType.USER_DEFINED)
    return texts, types


def _scores(described: dict[str, Any], file: Path) -> dict[str, float]:
    """Return the score of each token text: SentencePiece's own if its `file` exists, else the negated rank of the first merge that yields it."""
    if file.is_file():
        return _scores_of_pieces(file)
    scores = {text: 0.0 for text in described["model"]["vocab"] if len(text) == 1 or _BYTE_TEXT.fullmatch(text)}
    for rank, (left, right) in enumerate(described["model"]["merges"]):
        scores.setdefault(left + right, float(-1 - rank))
    return scores


def _scores_of_pieces(file: Path) -> dict[str, float]:
    """Return the score of each piece of a model of SentencePiece.

    Raises:
        ModelError: it is none, or a piece is no text.
    """
    try:
        processor = SentencePieceProcessor(model_proto=file.read_bytes())
        return {processor.id_to_piece(i): processor.get_score(i) for i in range(processor.get_piece_size())}
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise ModelError(f"A tokenizer.model must be SentencePiece's; {file} is not ({shown(error)}): download the model again.") from error


def _flat(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Flatten nested sequences of a normalizer or pre-tokenizer into a list of steps."""
    if part is None:
        return []
    inner = part.get("pretokenizers", part.get("normalizers"))
    return [part] if inner is None else [step for each in inner for step in _flat(each)]


def _step(part: dict[str, Any]) -> str:
    """Return a short name or the regular expression of a step, or its whole description if it has neither."""
    match part:
        case {"type": "Split", "pattern": {"Regex": str(expression)}, "behavior": "Isolated", "invert": False}:
            return expression
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return "words" if part.get("use_regex", True) else "bytes"
    return json.dumps(part, ensure_ascii=False)


def _pre_tokenizer(described: dict[str, Any]) -> str:
    normalizers = [step["type"] for step in _flat(described["normalizer"])]
    if set(normalizers) - {"NFC"}:  # text is nearly always in NFC already, and llama.cpp's converter ignores it too
        raise ModelError(f"llama.cpp does not change text before it splits it; this tokenizer does ({', '.join(normalizers)}): choose another model.")
    steps = tuple(_step(step) for step in _flat(described["pre_tokenizer"]))
    skips = described["model"].get("ignore_merges", False)
    if (steps, skips) not in PRE_TOKENIZERS:
        raise ModelError(
            f"A tokenizer must split text in a way that llama.cpp has a name for ({', '.join(PRE_TOKENIZERS.values())}); this one splits by "
            f"{' then '.join(steps) or 'nothing'}{', skipping merges' if skips else ''}: convert the model with llama.cpp and give the GGUF file."
        )
    if not described["model"]["merges"]:
        raise ModelError("llama.cpp loads no byte-level tokenizer without merges, and this one has none: choose another model.")
    return PRE_TOKENIZERS[steps, skips]


def _space_prefix(described: dict[str, Any]) -> bool:
    """Return whether the tokenizer prepends a space to a text.

    Raises:
        ModelError: a step is not one of SentencePiece's.
    """
    prefix = False
    for step in (*_flat(described["normalizer"]), *_flat(described["pre_tokenizer"])):
        match step:
            case {"type": "Prepend", "prepend": "▁"} | {"type": "Metaspace", "prepend_scheme": "first" | "always", "split": False}:
                prefix = True
            case {"type": "Metaspace", "prepend_scheme": "never", "split": False} | {"type": "Split", "pattern": {"String": " "}}:
                pass
            case {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}:
                pass
            case _:
                raise ModelError(
                    f"A SentencePiece tokenizer may only mark spaces before it merges; this one has the step {_step(step)}: "
                    "convert the model with llama.cpp and give the GGUF file."
                )
    return prefix


def _special(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> list[KeyValue]:
    settings = config.to_dict()
    ids = {
        "bos": (tokenizer.bos_token_id, settings.get("bos_token_id")),
        "eos": (tokenizer.eos_token_id, settings.get("eos_token_id")),
        "unknown": (tokenizer.unk_token_id,),
        "padding": (tokenizer.pad_token_id, settings.get("pad_token_id")),
    }
    found = [
        scalar(f"tokenizer.ggml.{role}_token_id", next(i for i in given if isinstance(i, int)), _U32)
        for role, given in ids.items()
        if any(isinstance(i, int) for i in given)
    ]
    # Added BOS and EOS tokens are found by tokenizing a text: every tokenizer names these settings differently.
    bare, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    n_before = next((i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare), -1)
    if n_before < 0:
        raise ModelError("A tokenizer may only put tokens around a text; this one changes the text's own: convert the model with llama.cpp.")
    return [
        *found,
        scalar("tokenizer.ggml.add_bos_token", n_before > 0, _BOOL),
        scalar("tokenizer.ggml.add_eos_token", len(whole) > n_before + len(bare), _BOOL),
    ]


def _chat_template(tokenizer: PreTrainedTokenizerBase) -> list[KeyValue]:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return [scalar("tokenizer.chat_template", template, _STRING)] if template else []
