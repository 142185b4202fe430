"""Mutants of models stored in another way than as floats in one file (quantized, split, a GGUF file in a folder), and of the words of a folder."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from gguf import GGUFReader

from bitwright.compress import CONFIG, GgufSource, name_with, open_checkpoint_files, open_headers, open_source, weights_of
from bitwright.compress.models.gguf.split_files import part_name
from bitwright.engines import DEFAULT_ENGINE, Serving, engine_named, memory_model_named
from tests.campaign import mutate
from tests.campaign.test_readers import BINARY, JSON, campaign
from tests.compress.models.checkpoints.quantized import test_awq, test_bitsandbytes, test_compressed_tensors, test_float8, test_gptq, test_hqq
from tests.compress.models.checkpoints.quantized.folders import WHOLE, opened, quantized
from tests.compress.models.gguf.test_split_files import N_PARTS, split

pytestmark = pytest.mark.slow

SAFETENSORS = (*BINARY, mutate.safetensors_of, mutate.safetensors_of, mutate.safetensors_of)
MODEL_OPTIMIZER_FILE = "hf_quant_config.json"


def _model_optimizer(source: Path, folder: Path) -> None:
    code = partial(test_float8.coded, block=lambda weight: tuple(weight.shape), scale="weight_scale", flat=True)
    quantized(source, folder, {}, code)
    (folder / MODEL_OPTIMIZER_FILE).write_text('{"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8"}}', encoding="utf-8")


def _compressed(source: Path, folder: Path) -> None:
    test_compressed_tensors.written(source, folder, "pack-quantized", ("Linear", test_compressed_tensors.weights(4)))


#: method of a checkpoint -> function that writes one of a model's folder to another
WRITERS: dict[str, Callable[[Path, Path], object]] = {
    "gptq": test_gptq.folder_of,
    "awq": lambda source, folder: quantized(source, folder, test_awq.SETTINGS, test_awq.coded),
    "fp8": test_float8.in_blocks,
    "bitsandbytes": lambda source, folder: quantized(
        source, folder, test_bitsandbytes.FOUR, partial(test_bitsandbytes.coded, kind="nf4", twice=True)
    ),
    "hqq": lambda source, folder: quantized(source, folder, test_hqq.SETTINGS, partial(test_hqq.coded, bits=4, axis=1)),
    "modelopt": _model_optimizer,
    "compressed-tensors": _compressed,
}


@pytest.fixture(scope="module")
def checkpoints(llama_tied: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of every method, by its name."""
    root = tmp_path_factory.mktemp("quantized")
    for method, write in WRITERS.items():
        write(llama_tied, root / method)
    return {method: root / method / "fp8" if method == "fp8" else root / method for method in WRITERS}


@pytest.mark.parametrize("method", WRITERS)
@pytest.mark.parametrize("name", [CONFIG, WHOLE])
def test_quantized_checkpoints(method: str, name: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    """An accepted folder has every weight of the module, in its shape."""
    folder = Path(shutil.copytree(checkpoints[method], tmp_path / "model"))
    said = folder / MODEL_OPTIMIZER_FILE if method == "modelopt" and name == CONFIG else folder / name

    def read() -> None:
        found = opened(folder)
        for weight, parameter in weights_of(found.skeleton).items():
            assert found.shards.parameter(weight).shape == parameter.shape

    original = said.read_bytes()
    assert campaign(said, original, read, SAFETENSORS if name == WHOLE else JSON, short=10, subject=f"{said.name} of {method}").refused


@pytest.mark.parametrize("number", range(N_PARTS - 1))
def test_parts_of_a_split_file(number: int, tmp_path: Path) -> None:
    first = split(tmp_path / "parts")
    part = first.with_name(part_name("model", number, N_PARTS))

    def read() -> None:
        source = GgufSource(first)
        library = [tensor for path in source.parts for tensor in GGUFReader(path).tensors]
        assert [(t.name, t.stored) for t in source.tensors] == [(t.name, t.tensor_type.name) for t in library]
        for tensor, theirs in zip(source.tensors, library, strict=True):
            assert source.stored(tensor).tobytes() == theirs.data.tobytes()

    assert campaign(part, part.read_bytes(), read, BINARY, subject=f"part {number + 1} of a split GGUF file").refused


def test_the_gguf_file_of_a_folder(llama_256: Path, gguf_256: Path, tmp_path: Path) -> None:
    """A file of `--gguf` or of a converter: its headers are those of the library."""
    file = tmp_path / "model.gguf"
    view = engine_named("llama.cpp").view

    def read() -> None:
        outline = open_headers(name_with(str(llama_256), gguf=str(file), converter=""), view)
        assert [tensor.name for tensor in outline.least.tensors] == [tensor.name for tensor in GGUFReader(file).tensors]

    assert campaign(file, gguf_256.read_bytes(), read, BINARY, short=10, subject="model.gguf of a folder").refused


@pytest.mark.parametrize("name", [CONFIG, "tokenizer_config.json", "tokenizer.json", "tokenizer.model"])
def test_words_of_a_folder(name: str, llama_tied: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama_tied, tmp_path / "model"))
    original = (folder / name).read_bytes()
    weights = open_source(str(folder)).tensors

    def read() -> None:
        source = open_source(str(folder))
        assert [tensor.shape for tensor in source.tensors] == [tensor.shape for tensor in weights]
        assert memory_model_named(DEFAULT_ENGINE).anatomy(source).use(Serving(1), file_bytes=10**9).total_bytes > 0

    assert campaign(folder / name, original, read, BINARY if name.endswith("model") else JSON, short=12).refused


def test_how_a_model_generates_is_shipped_as_it_lies_there(llama_tied: Path, tmp_path: Path) -> None:
    """No size or format goes by it, so nothing of it is read, and nothing refused."""
    folder, name = Path(shutil.copytree(llama_tied, tmp_path / "model")), "generation_config.json"
    original = (folder / name).read_bytes()
    weights = open_source(str(folder)).tensors

    def read() -> None:
        source = open_source(str(folder))
        assert [tensor.shape for tensor in source.tensors] == [tensor.shape for tensor in weights]
        assert open_checkpoint_files(str(folder)).files[name] == (folder / name).read_bytes()

    assert not campaign(folder / name, original, read, JSON, short=12).refused
