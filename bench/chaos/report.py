"""The tables of the bench, as Markdown: what was injected, how long recovery took, what was repeated, what was lost."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.chaos.faults import FAULTS


def read_results(folder: Path) -> list[dict[str, Any]]:
    """All results below a folder, by their seeds."""
    found = [json.loads(path.read_text()) for path in folder.glob("*/result.json")]
    return sorted(found, key=lambda result: (result["encoder"], result["seed"]))


def markdown(results: Sequence[dict[str, Any]]) -> str:
    """Totals over all runs, then a row for each kind of fault."""
    return "\n\n".join([_totals(results), _faults(results), _runs(results)])


def _totals(results: Sequence[dict[str, Any]]) -> str:
    verdicts = [result["verdict"] for result in results]
    done = sum(verdict["done"] for verdict in verdicts)
    wasted = sum(result["encoded_in_vain"] for result in results)
    blows = [blow for result in results for blow in result["blows"]]
    stops = [code for result in results for _, code in result["stops"]]
    unasked = Counter(code for result in results for _, code in result["unasked"])
    rows = [
        ("seeds", len(results)),
        (
            "runs that ended in time, with books that balance",
            sum(r["complete"] and r["balanced"] for r in results),
        ),
        ("faults injected", sum(map(_count, blows))),
        ("images", sum(verdict["images"] for verdict in verdicts)),
        ("done", done),
        ("failed, as they had to", sum(verdict["failed"] for verdict in verdicts)),
        ("**lost**", sum(len(verdict["lost"]) for verdict in verdicts)),
        ("**vectors stored twice**", sum(len(verdict["twice"]) for verdict in verdicts)),
        ("ended otherwise than they had to", sum(len(verdict["otherwise"]) for verdict in verdicts)),
        ("images encoded in vain", f"{wasted:,} ({100 * wasted / max(1, done):.1f} %)"),
        ("SIGTERMs, exit code 0", f"{stops.count(0)} of {len(stops)}"),
        ("processes that ended unasked", sum(unasked.values())),
    ]
    return _table(("over all runs", ""), rows)


def _faults(results: Sequence[dict[str, Any]]) -> str:
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        for blow in result["blows"]:
            if not blow["idle"]:
                by_kind[blow["kinds"][0] if len(blow["kinds"]) == 1 else "two at once"].append(blow)
    rows = []
    for kind in (*FAULTS, "two at once"):
        if not (blows := by_kind.get(kind)):
            continue
        fault = FAULTS.get(kind)
        rows.append(
            (
                fault.words if fault else "two of them at once",
                len(blows),
                f"{fault.seconds:g}" if fault else "",
                *_spread([blow["next_chunk"] for blow in blows]),
                *_spread([blow["held_chunks"] for blow in blows]),
                f"{statistics.mean(blow['wasted'] for blow in blows):.1f}",
            )
        )
    waits = ("next chunk, s", "worst", "held chunks, s", "worst")
    return _table(("fault", "times", "lasts, s", *waits, "encoded in vain, images"), rows)


def _count(blow: dict[str, Any]) -> int:
    return sum(kind != "control" for kind in blow["kinds"])


def _spread(values: Sequence[float | None]) -> tuple[str, str]:
    """Median and worst; "never" where it did not come within the time."""
    known = [value for value in values if value is not None]
    worst = "never" if len(known) < len(values) else f"{max(known):.1f}"
    return (f"{statistics.median(known):.1f}" if known else "never"), worst


def _runs(results: Sequence[dict[str, Any]]) -> str:
    rows = [
        (
            result["seed"],
            result["encoder"],
            f"{result['seconds']:.0f}",
            sum(map(_count, result["blows"])),
            result["verdict"]["done"],
            result["verdict"]["failed"],
            len(result["verdict"]["lost"]),
            len(result["verdict"]["twice"]),
            len(result["verdict"]["otherwise"]),
            f"{100 * result['encoded_in_vain'] / max(1, result['verdict']['done']):.1f} %",
            result["crashes"],
        )
        for result in results
    ]
    ends = ("done", "failed", "lost", "twice", "otherwise", "in vain", "crashes counted")
    return _table(("seed", "encoder", "s", "faults", *ends), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
