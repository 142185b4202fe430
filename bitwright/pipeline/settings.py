"""Settings of a run, and those that must stay the same to continue it."""

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from bitwright.compress import ROUNDING_PARTS, NamedRounding, Source, needs_moments
from bitwright.devices import thread_words
from bitwright.engines import DEFAULT_ENGINE, ENGINE_PARTS, ENGINES, Engine, engine_named, split_engine
from bitwright.errors import RunError, TextError, UserError, shown
from bitwright.methods import STRUCTURE_METHODS, structure_method
from bitwright.objectives import Shape
from bitwright.pipeline.calibration.mixture import parts_of, require_held_out, shares_in
from bitwright.pipeline.finishing.healing import Healing, require_healable
from bitwright.pipeline.finishing.moved_channels import require_values_kept
from bitwright.pipeline.finishing.steps import healing, moving, require_once, step_named
from bitwright.plugins import PartField, Parts
from bitwright.predictors import NATS_PROXIES, PROXY_PARTS, Proxy, proxy_named
from bitwright.ranges import CACHE_LENGTH, CALIBRATION_SEQUENCES, HELD_OUT_SEQUENCES, PRICE_ROWS, SEED, SEQUENCE_LENGTH
from bitwright.spaces import DEFAULT_CACHE, DEFAULT_CACHE_TYPE, AnyCacheTypes, CacheTypes, StructureKind, cache_types

#: prefix of the model's settings among those of the run
OF_MODEL = "model's "
SELF, SEQUENTIAL = "self", " (sequential)"
#: tokens of the longest sequence on which cache types are measured
LONGEST = 1024
FLOOR, FORCED = "floor", "forced"
#: types that a model is computed in where nothing is said, by kind of device; float32 on all others
DTYPES_OF_DEVICES = {"cuda": "bfloat16", "mps": "bfloat16"}
#: types that a model may be computed in
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ALL_ROWS = "all"


#: the settings that may be parts of other packages
_PARTS: dict[str, Parts[Engine] | Parts[Proxy] | Parts[NamedRounding]] = {
    "target": ENGINE_PARTS,
    "sensitivity": PROXY_PARTS,
    "codec": ROUNDING_PARTS,
    "ship_codec": ROUNDING_PARTS,
}
_ORIGINS = "parts of other packages"


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    `calibration` is a text file, a dataset's name, or `self`, or several separated by commas, see `shares_in`; `held_out` a text file, or empty for
    a part of the calibration text that is not calibrated on; `imatrix` a file of llama.cpp's imatrix tool, or empty to collect one. `formats` is the
    menu, empty for all. `skip` has patterns of tensors that stay unquantized (`token_embd*`). `sensitivity` is a proxy or its name, and `codec` a
    rounding or its name, empty for the target's default. `ship_codec` is the rounding of the written model if it differs from the search's, and
    `steps` are made before or after that, each as `step_named` parses it. `rare` says how experts with too few calibration tokens are priced:
    by a `floor` from the others of their layer, or `forced`, measured with tokens that are routed to them. `cache_types` are the types of keys and
    values: one type, one for each (`q8_0,q4_0`), or `any` to choose them with the weights, and `cache_length` the tokens of the sequences on which
    they are measured, as far as the text and the model's context go. Finished files are parts of at most `split_max_bytes`, one file where that is 0.
    `text_column` is the column of texts in tables, see `read_documents`.

    A search may use `search_memory_bytes` of memory, what the machine has free where that is 0. A model that does not fit is streamed block by block,
    and with `stream` any is. `threads` is a number of threads, or `all`, or `free` for as many as processors are idle when the run begins; empty for
    one on each processor; see `use_threads`. `dtype` is the type that the model is computed in, one of `DTYPES`, empty for float32 on CPUs and
    bfloat16 elsewhere. `price_rows` is the number of rows of a tensor by which its formats are priced, or `all`; empty for all of a small model and a
    sample of a larger one, see `priced_rows`. Packed tensors of the run folder take at most
    `disk_limit_bytes`, twice the bytes of the source where that is 0. `structure` are the kinds of parts that may be taken away,
    and `structure_method` a published method by which they are, see `asked_structure`; empty for prices that are measured. A kind that the engine
    takes away as a format is in the `menu`, and the others are `taken`.
    """

    model: str
    target: PartField[Engine] = PartField(ENGINE_PARTS, DEFAULT_ENGINE)
    formats: tuple[str, ...] = ()
    calibration: str = SELF
    held_out: str = ""
    imatrix: str = ""
    sensitivity: PartField[Proxy] = PartField(PROXY_PARTS, "gradient")
    n_calibration: int = 64
    n_held_out: int = 24
    sequence_length: int = 128
    seed: int = 0
    skip: tuple[str, ...] = ()
    codec: PartField[NamedRounding] = PartField(ROUNDING_PARTS, "")
    ship_codec: PartField[NamedRounding] = PartField(ROUNDING_PARTS, "")
    steps: tuple[str, ...] = ()
    rare: str = FLOOR
    cache_types: str = DEFAULT_CACHE_TYPE
    cache_length: int = LONGEST
    text_column: str = ""
    split_max_bytes: int = 0
    search_memory_bytes: int = 0
    stream: bool = False
    threads: str = ""
    dtype: str = ""
    price_rows: str = ""
    disk_limit_bytes: int = 0
    structure: tuple[StructureKind, ...] = ()
    structure_method: str = ""

    def __post_init__(self) -> None:
        if self.dtype not in ("", *DTYPES):
            raise UserError(f"A model is computed in one of {', '.join(DTYPES)}; '{self.dtype}' is none of them: choose one, or leave --dtype out.")
        CALIBRATION_SEQUENCES.require(self.n_calibration)
        HELD_OUT_SEQUENCES.require(self.n_held_out)
        SEQUENCE_LENGTH.require(self.sequence_length)
        CACHE_LENGTH.require(self.cache_length)
        SEED.require(self.seed)
        engine = self.engine
        proxy_named(self.sensitivity)
        for codec in (self.rounding, self.ship_codec or self.rounding):
            engine.require_codec(codec)
        if self.threads and len(thread_words(self.threads)) > 1:
            raise UserError(f"A run has one number of threads; '{shown(self.threads)}' has several: give --threads one of them.")
        self._require_rare()
        self._require_price_rows()
        parts_of(self.n_calibration, shares_in(self.calibration))
        for form in self.formats:
            engine.target.format(form)
        self._require_cache()
        self._require_steps()
        self._require_structure()
        for path, what in ((self.held_out, "held-out text"), (self.imatrix, "importance matrix")):
            if path and not Path(path).is_file():
                raise TextError(f"The {what} must be a file; there is none at {path}: check the path.")
        if self.held_out:
            require_held_out(self.calibration, self.held_out)

    def _require_rare(self) -> None:
        if self.rare not in (FLOOR, FORCED):
            raise UserError(f"Rarely chosen experts are priced by a {FLOOR}, or measured by {FORCED} routing; '{self.rare}' is neither: choose one.")
        if self.rare == FORCED and self.sensitivity not in NATS_PROXIES:
            raise UserError(
                f"Forced routing measures nats per token, as {', '.join(NATS_PROXIES)} are; '{self.sensitivity}' is not: choose one of "
                f"them, or --rare {FLOOR}."
            )

    def _require_price_rows(self) -> None:
        if self.price_rows in ("", ALL_ROWS):
            return
        if not self.price_rows.isdecimal():
            raise UserError(f"Formats are priced by {ALL_ROWS} rows or by a number of them; '{shown(self.price_rows)}' is neither: choose one.")
        PRICE_ROWS.require(int(self.price_rows))

    def _require_cache(self) -> None:
        if self.cache == DEFAULT_CACHE:
            return
        if not engine_named(self.target).chooses_cache_types:
            engines = ", ".join(name for name, engine in ENGINES.items() if engine.chooses_cache_types)
            raise UserError(f"Cache types can be chosen for {engines}; '{self.target}' has its own: leave --cache-types out.")
        if isinstance(self.cache, AnyCacheTypes) and self.sensitivity not in NATS_PROXIES:
            raise UserError(
                f"Cache types are measured in nats per token, as {', '.join(NATS_PROXIES)} are; '{self.sensitivity}' is not: choose one of them, "
                f"or --cache-types {DEFAULT_CACHE_TYPE.lower()}."
            )

    def _require_steps(self) -> None:
        for words in self.steps:
            step_named(words)
        require_once(self.steps)
        if self.healing is not None:
            require_healable(target=self.target, sampled=all(share.name == SELF for share in shares_in(self.calibration)))
        moved = moving(self.steps)
        if moved and not engine_named(self.target).moves_channels:
            engines = ", ".join(name for name, engine in ENGINES.items() if engine.moves_channels)
            raise UserError(f"Channels are moved between matrices for {engines}; '{self.target}' has no step {moved[0]}: leave --step out.")
        if self.cache != DEFAULT_CACHE:
            require_values_kept(moved)

    def _require_structure(self) -> None:
        method = structure_method(self.structure_method) if self.structure_method else None
        if self.structure_method and (method is None or method.kinds != self.structure):
            raise UserError(
                f"A method that takes parts away comes with its kinds of structure; '{self.structure_method}' and "
                f"{', '.join(self.structure) or 'none'} are not such a pair: take both from asked_structure, with one of "
                f"{', '.join(known.name for known in STRUCTURE_METHODS)}."
            )
        for kind, form in self.engine.absences.items():
            if self.structure_method and kind in self.structure:
                raise UserError(
                    f"For {self.target} {kind} go one by one, as a choice of format; {self.structure_method} says which go: choose "
                    f"--structure {kind}, or --target llama.cpp."
                )
            if form in self.formats:
                raise UserError(
                    f"What may go is named as structure; {form} is among the formats: choose --structure {kind}, and no {form} in --formats."
                )
        if self.taken and (self.remeasures or self.rounding != engine_named(self.target).codecs[0]):
            what = ", ".join(self.steps) or self.ship_codec or self.rounding
            raise UserError(f"With a structure, tensors ship as the search rounded them; {what} changes that: leave it or --structure out.")

    @property
    def menu(self) -> tuple[str, ...]:
        """Names of the formats, with those that take parts away; empty for all that the target offers."""
        absent = tuple(form for kind, form in self.engine.absences.items() if kind in self.structure)
        usual = tuple(form.name for form in engine_named(self.target).target.formats if not form.only_named)
        return ((self.formats or usual) + absent) if absent else self.formats

    @property
    def taken(self) -> tuple[StructureKind, ...]:
        """Kinds of parts that may be taken away beside the formats."""
        return tuple(kind for kind in self.structure if kind not in self.engine.absences)

    @property
    def engine(self) -> Engine:
        """The engine that will load the finished model."""
        return split_engine(self.target, self.split_max_bytes)

    @property
    def cache(self) -> CacheTypes | AnyCacheTypes:
        """The KV cache types, or `any`."""
        return cache_types(self.cache_types)

    @property
    def shape(self) -> Shape:
        """Numbers of calibration and held-out sequences, and their length in tokens."""
        return Shape(self.n_calibration, self.n_held_out, self.sequence_length)

    @property
    def rounding(self) -> str:
        """Name of the rounding of the search."""
        return self.codec or engine_named(self.target).codecs[0]

    @property
    def ships_sequentially(self) -> bool:
        """True if the shipped rounding is sequential: block by block, as GPTQ."""
        return needs_moments(self.ship_codec)

    @property
    def healing(self) -> Healing | None:
        """The step that trains what is stored beside codes, None without it."""
        return healing(self.steps)

    @property
    def requantizes(self) -> bool:
        """True if candidates are requantized with another rounding before one ships."""
        return self.ships_sequentially or self.ship_codec not in ("", self.rounding)

    @property
    def remeasures(self) -> bool:
        """True if candidates are measured again before one ships."""
        return self.requantizes or bool(self.steps)

    @property
    def shipped(self) -> str:
        """Name of the rounding of the written model."""
        return (self.ship_codec + SEQUENTIAL * self.ships_sequentially) if self.requantizes else self.rounding

    @property
    def shipping(self) -> str:
        """Name of the rounding of the written model, and its steps."""
        return ", ".join((self.shipped, *self.steps))

    def identity(self, source: Source) -> dict[str, str]:
        """Return every setting that changes the result, files by their contents; a run continues only with equal ones."""
        of_model = {f"{OF_MODEL}{key}": value for key, value in source.settings.items()}
        return {"model": source.fingerprint, **of_model, **self.identity_apart}

    @property
    def identity_apart(self) -> dict[str, str]:
        """The settings of `identity` that are known without the model."""
        return {
            "target": _with_origin(ENGINE_PARTS, self.target),
            "formats": " ".join(sorted(self.menu)) or "all",
            "kept as stored": " ".join(sorted(self.skip)) or "none",
            "calibration": _mixture(self.calibration),
            "column of texts": self.text_column or "text or messages",
            "held-out text": _contents(self.held_out) if self.held_out else "part of the calibration text",
            "imatrix": _contents(self.imatrix) if self.imatrix else "collected",
            "codec": _with_origin(ROUNDING_PARTS, self.rounding),
            "types of the cache": str(self.cache) + f", on sequences of {self.cache_length}" * (self.cache != DEFAULT_CACHE),
            "sensitivity": _with_origin(PROXY_PARTS, self.sensitivity),
            "sequences": f"{self.n_calibration} + {self.n_held_out} of {self.sequence_length} tokens",
            "rarely chosen experts": self.rare,
            "parts of the file": f"of at most {self.split_max_bytes} bytes" if self.split_max_bytes else "one",
            "structure": (", ".join(self.structure) or "whole") + f" by {self.structure_method}" * bool(self.structure_method),
            "rows that formats are priced by": self.price_rows or "by the size of the model",
            "seed": str(self.seed),
            "computed in": self.dtype or "the type of the device",
            "xllamacpp": importlib.metadata.version("xllamacpp"),
            "bitwright": importlib.metadata.version("bitwright"),
        }

    def require_streamable(self) -> None:
        """Require that what ships is made without the whole model in memory.

        Raises:
            UserError: a rounding or a step needs it.
        """
        what = self.ship_codec if self.ships_sequentially else self.rounding if needs_moments(self.rounding) else ", ".join(self.steps)
        if self.taken:
            raise UserError("Structure is chosen with the whole model in memory: leave --structure out, or give more --search-memory.")
        if what:
            raise UserError(
                f"A streamed model is quantized tensor by tensor; {what} runs blocks that it changes: leave it out, or give more --search-memory."
            )

    def on_device(self, device: str) -> "Settings":
        """Return the settings with the type that the model is computed in on a device, which a run keeps on any other."""
        return self if self.dtype else replace(self, dtype=DTYPES_OF_DEVICES.get(device.partition(":")[0], "float32"))

    def to_json(self) -> str:
        """Return the settings as JSON for the run folder, with the packages that plug-ins come from."""
        used = {name: parts.origin(vars(self)[f"_{name}"]) for name, parts in _PARTS.items()}
        return json.dumps(asdict(self) | {_ORIGINS: {name: origin for name, origin in used.items() if origin}})


def settings_from_json(text: str) -> Settings:
    """Parse the settings that `Settings.to_json` wrote.

    Raises:
        RunError: another version of Bitwright wrote them, or they name a plug-in that is not installed.
    """
    said = json.loads(text)
    for name, origin in said.pop(_ORIGINS, {}).items():
        if said[name] not in _PARTS[name].names:
            raise RunError(
                f"A run continues only with the plug-ins that it began with; '{said[name]}', its {name.replace('_', ' ')}, came from {origin} and is "
                "not here: install that package, or register the object before the run is opened."
            )
    wrong = sorted(set(said) ^ {field.name for field in fields(Settings)})
    if wrong:
        raise RunError(
            f"The settings of a run must be of this version of Bitwright; here {wrong[0]} is new or gone: search again with another --out."
        )
    return Settings(**said | {name: tuple(said[name]) for name in ("formats", "skip", "steps", "structure")})


def _with_origin(parts: Parts[Engine] | Parts[Proxy] | Parts[NamedRounding], name: str) -> str:
    """Return the name of a part, with package and version if it is a plug-in."""
    origin = parts.origin(name)
    return f"{name} of {origin}" if origin else name


def _mixture(words: str) -> str:
    """Return the texts by name and digest of their contents, several with their weights."""
    shares = shares_in(words)
    return ", ".join(_contents(share.name) + f":{share.weight:g}" * (len(shares) > 1) for share in shares)


def _contents(name: str) -> str:
    path = Path(name)
    if not path.is_file():
        return name
    try:
        return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    except OSError as error:
        raise TextError(f"A text must be a readable file; {path} is not ({error.strerror}): check its permissions.") from error
