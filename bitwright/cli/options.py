"""Options that commands share, each declared once: their names, help, and the panel of `--help` that they stand in."""

from pathlib import Path
from typing import Annotated

import typer

import bitwright as bw
from bitwright.ranges import (
    CONTEXT,
    EVALUATIONS,
    PARALLEL,
    PRICE_ROWS,
    SECONDS,
    SEED,
    THREADS,
    TOKENS,
)

#: panels of `--help`, in this order
PANELS = MODEL, BUDGET, TEXT, SEARCH, OUTPUT = "Model and formats", "Budget and limits", "Text", "Search", "Output"

# what a command works on
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Model to quantize: a GGUF file, a Hugging Face folder, or a hub name (Qwen/Qwen3-4B).")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN/", help="Folder that `bitwright search` or `bitwright fit` wrote (their --out).")]

# model and formats
Gguf = Annotated[
    str,
    typer.Option(
        "--gguf",
        metavar="FILE",
        help="GGUF file of the folder MODEL, in floats, for llama.cpp. Default: made of the folder, by llama.cpp's converter where Bitwright does "
        "not know the family.",
        rich_help_panel=MODEL,
    ),
]
Converter = Annotated[
    str,
    typer.Option(
        metavar="PATH",
        help="convert_hf_to_gguf.py, or a checkout of llama.cpp that has it, to convert the folder MODEL with. Default: the one that is installed on "
        "first use.",
        rich_help_panel=MODEL,
    ),
]
Target = Annotated[
    str,
    typer.Option(
        metavar="ENGINE",
        help="Engine that will load the model: llama.cpp, transformers, vllm, native (a format for each expert), native-matrices, native-channels, "
        "native-channel-matrices, or integers (writes no model; to compare methods).",
        rich_help_panel=MODEL,
    ),
]
Formats = Annotated[
    str,
    typer.Option(
        metavar="NAMES", help="Formats to choose from, e.g. Q4_K,Q5_K,Q6_K. Default: all that the target offers by itself.", rich_help_panel=MODEL
    ),
]
Skip = Annotated[
    str,
    typer.Option(
        metavar="PATTERNS", help="Tensors to leave unquantized, as patterns, e.g. 'token_embd*,output*'. Default: none.", rich_help_panel=MODEL
    ),
]
Keep = Annotated[str, typer.Option("--keep", help="Former name of --skip.", hidden=True)]
Codec = Annotated[
    str,
    typer.Option(
        metavar="METHOD",
        help="Rounding method. Of integer formats: rtn (round to nearest), clip, hqq, gptq, gptq+clip, gptq+refit or gptq+clip+refit (levels by "
        "least squares once all codes are settled); default: rtn. Of llama.cpp's formats: ggml (its own quantizers; the default) or obs (the same "
        "blocks with error feedback).",
        rich_help_panel=MODEL,
    ),
]
ShipCodec = Annotated[
    str,
    typer.Option(
        metavar="METHOD",
        help="Rounding method of the finished model: the candidates are quantized again with it (gptq and obs block by block) and measured again. "
        "Default: that of --codec.",
        rich_help_panel=MODEL,
    ),
]
Steps = Annotated[
    list[str],
    typer.Option(
        "--step",
        metavar="STEP",
        help="Step around quantization; may be given several times. For llama.cpp scale, order-channels and rotate move channels between matrices "
        "without changing the function, and ship where they measure better. For mixtures of experts router-calibration, or "
        "router-calibration:ridge=32 (in tokens). For native heal, or heal:tokens=65536, which trains scales and low-rank pairs on the calibration "
        "text. Default: those of the method, most have none.",
        rich_help_panel=MODEL,
    ),
]

# budget
SplitMaxSize = Annotated[
    str,
    typer.Option(
        "--split-max-size",
        metavar="SIZE",
        help="Largest size of a part, e.g. 2GB, to write the model as several GGUF files, for llama.cpp. Default: one file, or as the plan says.",
        rich_help_panel=OUTPUT,
    ),
]
SearchMemory = Annotated[
    str,
    typer.Option(
        "--search-memory",
        metavar="SIZE",
        help="Memory that the search itself may use, e.g. 3GB; --memory is that of the finished model. A model that does not fit is streamed block "
        "by block. Default: what the machine has free.",
        rich_help_panel=SEARCH,
    ),
]
StreamModel = Annotated[
    bool,
    typer.Option("--stream", help="Stream the model block by block from its files even if it fits into memory.", rich_help_panel=SEARCH),
]
Threads = Annotated[
    str,
    typer.Option(
        "--threads",
        metavar="NUMBER",
        help=f"Number of threads, {THREADS}, `all`, or `free` for as many as processors are idle at the start; a run keeps it. Sums of floats, and "
        "so plans, may depend on it. Default: all.",
        rich_help_panel=SEARCH,
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="Type that the model is computed in: float32, bfloat16 or float16. Default: float32 on CPUs, bfloat16 on GPUs.",
        rich_help_panel=SEARCH,
    ),
]
BudgetText = Annotated[
    str,
    typer.Option(
        "--budget",
        metavar="SIZE",
        help="Largest size of the finished file: 90MB, 85.8MiB, 0.4GB, or 4.6bpw (bits per weight, metadata included).",
        rich_help_panel=BUDGET,
    ),
]
MemoryText = Annotated[
    str,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Most memory that the running engine may take, in place of --budget: 4GiB or 900MB for weights, KV cache and buffers. "
        "Needs --context; llama.cpp only.",
        rich_help_panel=BUDGET,
    ),
]
Context = Annotated[
    int,
    typer.Option(
        metavar="TOKENS",
        help=f"Context length of each sequence in the engine, in tokens, {CONTEXT}.",
        show_default=False,
        rich_help_panel=BUDGET,
    ),
]
Parallel = Annotated[int, typer.Option(metavar="N", help=f"Number of sequences that the engine serves at once, {PARALLEL}.", rich_help_panel=BUDGET)]
CacheTypes = Annotated[
    str,
    typer.Option(
        metavar="TYPES",
        help="Types of the KV cache: one for both, e.g. q8_0, or one for keys and one for values, e.g. q8_0,q4_0; `any` chooses them together with "
        "the formats of the weights, which is the default with --memory.",
        rich_help_panel=BUDGET,
    ),
]
Structure = Annotated[
    str,
    typer.Option(
        metavar="KINDS",
        help="Parts that may be taken away where that measures better than coarser formats: attention (of a block), channels (of a feed-forward "
        "part), experts, heads, layers, or all that the model can lose; or a published method by name: shortgpt, deeper-layers, laco, trimllm, "
        "uniql, llm-pruner, camera, mini-gpts, small-contributions, kfac, collaborative, evopress-drops, search-llm, or evopress-drops:FILE, a "
        "layer_drop_config.txt of EvoPress. Default: none. "
        "For llama.cpp; layers, and the methods that take blocks, and experts for the other engines too, attention for native.",
        rich_help_panel=BUDGET,
    ),
]
AtMost = Annotated[
    str,
    typer.Option(
        "--at-most",
        metavar="LIMITS",
        help="Ceilings beside the budget, e.g. seconds-per-token=0.05,active-bytes=60MB. kl=0.03 (nats/token) takes the place of the budget: it "
        "seeks the smallest file within that divergence.",
        rich_help_panel=BUDGET,
    ),
]
Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        metavar="DEVICE",
        help="Device that seconds and joules are computed for: a file written by `bitwright profile`, or a known name, e.g. raspberry-pi-5-8gb.",
        rich_help_panel=BUDGET,
    ),
]

# search
Sensitivity = Annotated[
    str,
    typer.Option(
        metavar="PROXY",
        help="Sensitivity proxy, which prices each format of each tensor before any plan is measured: gradient, importance, weight, measured, "
        "prior (neither text nor gradients; from tables of Thireus, GGUF Tool Suite and its contributors), or another one by its name.",
        rich_help_panel=SEARCH,
    ),
]
Rare = Annotated[
    str,
    typer.Option(
        metavar="HOW",
        help="How to price experts with too few calibration tokens: floor (at least the median of the layer's other experts), or forced (measured "
        "with tokens routed to them).",
        rich_help_panel=SEARCH,
    ),
]
PriceRows = Annotated[
    str,
    typer.Option(
        "--price-rows",
        metavar="ROWS",
        help=f"Rows of each tensor by which its formats are priced: all, or a number, {PRICE_ROWS}. Default: all of a model of at most 16 million "
        "weights, else as many as give prices a relative standard error of 10 %.",
        rich_help_panel=SEARCH,
    ),
]
Method = Annotated[
    str,
    typer.Option(metavar="NAME", help="Search method: auto, a published one or a baseline; `bitwright methods` lists them.", rich_help_panel=SEARCH),
]
AsPublished = Annotated[
    bool,
    typer.Option(
        "--as-published",
        help="Take the plan of the method itself, even where another candidate measures better, and compute nothing that it does not need.",
        rich_help_panel=SEARCH,
    ),
]
Evaluations = Annotated[
    int,
    typer.Option(
        metavar="N",
        help=f"Maximum number of plans to evaluate on calibration text, {EVALUATIONS}; 0 trusts the sensitivity table.",
        rich_help_panel=SEARCH,
    ),
]
TokenLimit = Annotated[
    float,
    typer.Option(
        "--tokens",
        metavar="N",
        help=f"Maximum number of tokens that the search reads, in forward and backward passes, {TOKENS}.",
        show_default="no limit",
        rich_help_panel=SEARCH,
    ),
]
Minutes = Annotated[
    float,
    typer.Option(metavar="N", help=f"Maximum time of the search in minutes, {SECONDS}.", show_default="no limit", rich_help_panel=SEARCH),
]
Objectives = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Objectives to minimise, the first one decides: kl,flips,worst5%,error:TASK.jsonl,active-bytes,... Default: those of the method, "
        "which is kl for auto.",
        rich_help_panel=SEARCH,
    ),
]
Seed = Annotated[
    int,
    typer.Option(metavar="N", help=f"Seed of all random draws, {SEED}; the same seed gives the same plan.", rich_help_panel=SEARCH),
]


Ray = Annotated[
    str,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Ray cluster whose workers share the work: HOST:PORT, or auto for one on this machine, started if none runs. Default: none.",
        rich_help_panel=SEARCH,
    ),
]
NWorkers = Annotated[
    int, typer.Option("--workers", metavar="N", help="Number of workers in the cluster; 0 for one on each node, or GPU.", rich_help_panel=SEARCH)
]
GpusPerWorker = Annotated[
    int, typer.Option("--gpus-per-worker", metavar="N", help="GPUs of each worker; 0 for one with --device cuda, else none.", rich_help_panel=SEARCH)
]


# output
def writable(path: Path | None) -> Path | None:
    """Return `path` if a file can be written there: checked before the work whose result goes there.

    Raises:
        OutputError: the place cannot be written.
    """
    if path is not None:
        bw.pipeline.require_file(path)
    return path


OutFolder = Annotated[
    Path,
    typer.Option(
        "--out", metavar="FOLDER", help="Folder for all results. An interrupted command continues from what is in it.", rich_help_panel=OUTPUT
    ),
]
PlanFile = Annotated[
    Path,
    typer.Option("-o", "--output", metavar="PLAN.json", help="File to write the plan to.", callback=writable, rich_help_panel=OUTPUT),
]
DiskLimit = Annotated[
    str,
    typer.Option(
        "--disk-limit",
        metavar="SIZE",
        help="Most space for packed tensors in the folder (levels/), e.g. 2GB: what was used longest ago is removed, and made again when needed. "
        "Default: twice the model's size.",
        rich_help_panel=OUTPUT,
    ),
]
EnginePython = Annotated[
    str,
    typer.Option(
        "--engine-python",
        metavar="PYTHON",
        help="Python of an environment with vLLM, to run the check of a vllm model there. Default: that of Bitwright.",
        rich_help_panel=OUTPUT,
    ),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="Device of torch to measure on: cpu, cuda or mps.", rich_help_panel=OUTPUT)]


def split_names(text: str) -> tuple[str, ...]:
    """Split `text` at its commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
