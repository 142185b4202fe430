"""Summarize a race: a table for each model, ratios over all of them, and a picture.

    python benchmarks/race_table.py RACE/race.json OTHER/race.json ... --picture race.svg
    python benchmarks/race_table.py --page docs/methods.md --tables 4       the ratios over what was printed before

Records of the same model are put together: seeds may have raced apart.
Divergences are means over calibration seeds; the error beside each is that of the paired difference from `auto`, over held-out sequences and seeds.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

Rows = list[dict[str, Any]]
Heat = dict[str, float]  # lane -> mean divergence in nats per token
OURS = "auto"
RIVALS = ("autoround autoscheme", "dynquant", "mlx-lm dynamic", "modelopt gradient", "nncf mixed")
BEST_RIVAL = "best rival of each heat"


def lanes_of(rows: Rows) -> list[str]:
    """Return the lanes in the order of the first heat that has each."""
    return list(dict.fromkeys(row["lane"] for row in rows))


def of(rows: Rows, lane: str, bits: float) -> Rows:
    """Rows of a lane at a number of bits."""
    return [row for row in rows if row["lane"] == lane and row["code_bits"] == bits]


def nats(rows: Rows) -> float:
    """Mean divergence of rows over their sequences, NaN without rows."""
    return float(np.mean([np.mean(row["sequence_nats"]) for row in rows])) if rows else float("nan")


def difference(rows: Rows, ours: Rows) -> tuple[float, float]:
    """Mean paired difference from ours and its standard error, over the sequences of all seeds that both ran."""
    by_seed = {row["seed"]: np.array(row["sequence_nats"]) for row in ours}
    pairs = [np.array(row["sequence_nats"]) - by_seed[row["seed"]] for row in rows if row["seed"] in by_seed]
    if not pairs:
        return float("nan"), float("nan")
    mean = np.mean(pairs, axis=0)  # (n_sequences,): seeds share the held-out text, so their differences are no independent ones
    return float(mean.mean()), float(mean.std(ddof=1) / np.sqrt(len(mean)))


def show(races: dict[str, Rows]) -> None:
    """Print a table for each model and the ratios over all."""
    for model, rows in races.items():
        budgets = sorted({row["code_bits"] for row in rows})
        print(f"\n{model}: nats/token on held-out text, mean over {len({row['seed'] for row in rows})} calibration seeds; in brackets the paired")
        print(f"difference from {OURS} in standard errors; tokens are forward + backward in thousands, of the dearest budget; * is over the budget\n")
        print(f"{'lane':22}" + "".join(f"{bits:>17g}" for bits in budgets) + f"{'tokens':>16}{'seconds':>9}")
        for lane in lanes_of(rows):
            print(f"{lane:22}" + "".join(_cell(rows, lane, bits) for bits in budgets) + _cost([row for row in rows if row["lane"] == lane]))
    print()
    print_ratios(heats_of(races))


def _cell(rows: Rows, lane: str, bits: float) -> str:
    mine = of(rows, lane, bits)
    if not mine:
        return f"{'–':>17}"
    over = "*" if any(max(row["bytes"]) > row["budget_bytes"] for row in mine) else " "
    mean, error = difference(mine, of(rows, OURS, bits))
    told = "" if lane == OURS or not error > 0 else f"({mean / error:+.1f})"
    return f"{nats(mine):>9.4f}{over}{told:>7}"


def _cost(rows: Rows) -> str:
    forward, backward = (max(row[f"{kind}_tokens"] for row in rows) / 1e3 for kind in ("forward", "backward"))
    return f"{forward:>9.0f} + {backward:<4.0f}{max(row['seconds'] for row in rows):>9.0f}"


def heats_of(races: dict[str, Rows]) -> list[Heat]:
    """Return the divergence of every lane, for each model and budget."""
    return [
        {lane: value for lane in lanes_of(rows) if np.isfinite(value := nats(of(rows, lane, bits)))}
        for rows in races.values()
        for bits in sorted({row["code_bits"] for row in rows})
    ]


def heats_on(page: Path, n_tables: int) -> list[Heat]:
    """Return the heats of the first `n_tables` tables on a page."""
    tables = [part.partition("```")[0].splitlines() for part in page.read_text(encoding="utf-8").split("```text\n") if part.startswith("lane  ")]
    found = []
    for header, *lines in tables[:n_tables]:
        width = len(header[: header.index(" tokens")].rstrip().split()) - 1
        cells = {line[:22].strip(): re.sub(r"\(.*?\)", "", line[22:]).replace("–", "nan").split()[:width] for line in lines}
        found += [{lane: value for lane, values in cells.items() if np.isfinite(value := float(values[i]))} for i in range(width)]
    return found


def print_ratios(heats: list[Heat]) -> None:
    """Geometric means over models and budgets of ours over each other lane, and over the best rival of each heat: the least mean divergence,
    whichever rival has it. Who had all five and could tell which is best would have that.
    """
    with_best = [heat | {BEST_RIVAL: min((heat[lane] for lane in RIVALS if lane in heat), default=np.nan)} for heat in heats]
    lanes = (BEST_RIVAL, *dict.fromkeys(lane for heat in heats for lane in heat))
    for mine in ("table", "as cheap", OURS):
        for other in lanes:
            both = [heat for heat in with_best if mine in heat and np.isfinite(heat.get(other, np.nan))]
            if both and other != mine:
                logs = [np.log(heat[mine] / heat[other]) for heat in both]
                print(f"{mine} / {other}: {np.exp(np.mean(logs)):.3f} (largest {np.exp(np.max(logs)):.3f}, {len(logs)} heats)")


def picture(races: dict[str, Rows], path: Path) -> None:
    """Divergence over that of uniform, a panel a model, a line a lane: below 1 is better than uniform."""
    width, height, gap = 460, 300, 60
    panels = [_panel(model, rows, left=gap + i * (width + gap), size=(width, height)) for i, (model, rows) in enumerate(races.items())]
    total = gap + len(races) * (width + gap)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height + 260}" font-family="sans-serif" font-size="12">'
    path.write_text(f'{head}<rect width="100%" height="100%" fill="white"/>{"".join(panels)}</svg>', encoding="utf-8")


_COLOURS = ("#1b6ca8", "#c8553d", "#588b8b", "#8e5572", "#f28f3b", "#4a7c59", "#6d597a", "#b56576", "#355070", "#997b66", "#7f7f7f", "#bcbd22")


def _panel(model: str, rows: Rows, *, left: int, size: tuple[int, int]) -> str:
    (width, height), budgets = size, sorted({row["code_bits"] for row in rows})
    shown = [lane for lane in lanes_of(rows) if lane not in {"uniform", "random mix"}]
    curves = {lane: [nats(of(rows, lane, bits)) / nats(of(rows, "uniform", bits)) for bits in budgets] for lane in shown}
    top = min(max([value for curve in curves.values() for value in curve if np.isfinite(value)] + [1.0]) * 1.05, 2.0)
    place = {bits: left + width * (i + 0.5) / len(budgets) for i, bits in enumerate(budgets)}
    parts = [f'<text x="{left}" y="24" font-weight="bold" font-size="14">{model}: divergence over that of the best uniform</text>']
    for level in np.arange(0, top, 0.25):
        y = 40 + height * (1 - level / top)
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}" stroke="{"#333" if level == 1 else "#ddd"}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{level:g}</text>')
    parts += [f'<text x="{x:.1f}" y="{height + 58}" text-anchor="middle">{bits:g} bits</text>' for bits, x in place.items()]
    for i, (lane, curve) in enumerate(curves.items()):
        colour, ours = _COLOURS[i % len(_COLOURS)], lane == OURS
        points = [(place[bits], 40 + height * (1 - min(value, top) / top)) for bits, value in zip(budgets, curve, strict=True) if np.isfinite(value)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{3.5 if ours else 1.5}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{4 if ours else 2.5}" fill="{colour}"/>' for x, y in points]
        row, column = divmod(i, 3)
        parts.append(f'<circle cx="{left + 6 + column * 150}" cy="{height + 82 + row * 20}" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{left + 16 + column * 150}" y="{height + 86 + row * 20}">{lane}</text>')
    return "".join(parts)


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("races", type=Path, nargs="*", help="race.json of each model, or of some of its seeds")
    parser.add_argument("--picture", type=Path, help="SVG file to write")
    parser.add_argument("--page", type=Path, help="page of tables that were printed before")
    parser.add_argument("--tables", type=int, default=1, help="how many of the page (default: %(default)s)")
    args = parser.parse_args()
    races: dict[str, Rows] = {}
    for path in args.races:
        record = json.loads(path.read_text(encoding="utf-8"))
        races.setdefault(Path(record["model"]).name, []).extend(record["rows"])
    if races:
        show(races)
    if args.page:
        print_ratios(heats_on(args.page, args.tables))
    if args.picture:
        picture(races, args.picture)


if __name__ == "__main__":
    main()
