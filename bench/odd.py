"""Every odd picture that packages carry, through a real worker: what becomes of it, how long it takes, who dies.

The pictures are the test images of Pillow's own source distribution and PngSuite, which pypng's carries as text.
"""

import ast
import json
import os
import resource
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

from psycopg.rows import dict_row

from bench.processes import ROOT, start
from bench.services import fresh_database
from bench.table import print_table
from cli.worker import ENVIRONMENT
from lookalike.database import Connection
from lookalike.services import up
from lookalike.settings import Settings

SLOWEST = 8
TIMEOUT_SECONDS = 1800


def run(settings: Settings) -> None:
    """Prints what became of the pictures by reason, and the slowest and the largest of them."""
    files = collect(settings.home / "odd")
    decoded = decode_each(files)
    rows = [(key, f"{seconds:.2f} s", f"{size / 2**20:.0f} MB", said) for key, seconds, size, said in decoded]
    by_time = sorted(range(len(rows)), key=lambda place: -decoded[place][1])[:SLOWEST]
    by_size = sorted(range(len(rows)), key=lambda place: -decoded[place][2])[:SLOWEST]
    columns = ("file", "CPU", "memory", "became")
    print_table("The slowest to decode, one at a time", columns, [rows[place] for place in by_time])
    print_table("Those that took most memory", columns, [rows[place] for place in by_size])
    with fresh_database(settings) as (url, connection):
        peak = embed_all(settings, url, files)
        print_reasons(connection, len(files), peak)


def collect(folder: Path) -> dict[str, Path]:
    """The pictures by key; they are downloaded once."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in ("pillow", "pypng"):
        if not list(folder.glob(f"{package}-*.tar.gz")):
            words = [
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                package,
                "--dest",
                str(folder),
                package,
            ]
            subprocess.run([sys.executable, "-m", "pip", *words], check=True)
        if not list(folder.glob(f"{package}-*/")):
            with tarfile.open(next(folder.glob(f"{package}-*.tar.gz"))) as archive:
                archive.extractall(folder, filter="data")
    suite = folder / "pngsuite"
    suite.mkdir(exist_ok=True)
    for name, data in read_pngsuite(next(folder.glob("pypng-*/code/pngsuite.py"))).items():
        (suite / f"{name}.png").write_bytes(data)
    pillow = next(folder.glob("pillow-*/Tests/images"))
    found = [*sorted(pillow.rglob("*")), *sorted(suite.iterdir())]
    return {f"{path.relative_to(folder)}": path for path in found if path.is_file()}


def read_pngsuite(module: Path) -> dict[str, bytes]:
    """The pictures in a module that holds them as hexadecimal digits, which is read and not run."""
    return {
        key.value: bytes.fromhex(value.args[0].value.decode())
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(value, ast.Call)
        if isinstance(value.args[0], ast.Constant) and isinstance(value.args[0].value, bytes)
    }


def decode_each(files: dict[str, Path]) -> list[tuple[str, float, int, str]]:
    """Key, CPU seconds, bytes of memory at the peak, and what became of it, for each file in turn."""
    with start("-m", "bench.odd_child") as child:
        answers = [child.ask(str(path)) for path in files.values()]
    return [(key, *answer) for key, answer in zip(files, answers, strict=True)]


def embed_all(settings: Settings, database_url: str, files: dict[str, Path]) -> int:
    """Runs the whole system over the files. Returns the worker's peak of memory in bytes."""
    table = settings.home / "odd.jsonl"
    table.write_text(
        "\n".join(json.dumps({"key": key, "url": path.as_uri()}) for key, path in files.items()) + "\n"
    )
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "PYTHONPATH": str(ROOT),
        "DATABASE_URL": database_url,
        "BROKER_URL": up(settings).broker_url,
        "LOOKALIKE_HOME": str(settings.home),
    }
    words = [sys.executable, "-m", "cli.main", "run", str(table), "--json"]
    subprocess.run(words, cwd=ROOT, env=environment, check=True, timeout=TIMEOUT_SECONDS, capture_output=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def print_reasons(connection: Connection, files: int, peak: int) -> None:
    """The books of the one encoder, and how often a worker died."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute("select reason, count(*) as images from failures group by reason order by 2 desc")
        failed = Counter({row["reason"]: row["images"] for row in cursor.fetchall()})
        cursor.execute("select coalesce(max(crashes), 0) as crashes from chunks")
        crashes = (cursor.fetchone() or {"crashes": 0})["crashes"]
    rows = [
        ("files", f"{files:,}"),
        ("done", f"{files - failed.total():,}"),
        *((f"failed: {reason}", f"{count:,}") for reason, count in failed.items()),
        ("peak memory of the worker", f"{peak / 2**20:,.0f} MB"),
        ("dead workers", f"{crashes}"),
    ]
    print_table("Odd pictures through a real worker", ("", ""), rows)
