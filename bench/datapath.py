"""The data path alone: fetch and decode with an encoder that returns at once, or that stands in for a GPU.

Beside it, in turns: decoding from memory, which is its ceiling, and img2dataset on the same files of the same server.
Set `IMG2DATASET` to the Python of a virtual environment that has it. What counts is CPU time, not the wall clock.
"""

import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.pictures import write_medium, write_small
from bench.processes import Child, child, server
from bench.table import median_and_range, print_table
from lookalike.settings import Settings

ROUNDS = 5
LATENCY = 0.05
# Name, what writes the files, how many different ones, how many are fetched in a round.
SETS: tuple[tuple[str, Callable[[Path, int], list[str]], int, int], ...] = (
    ("400 x 400 px, 43 kB", write_small, 256, 1024),
    ("2,000 x 1,500 px, 820 kB", write_medium, 48, 144),
)
# Images per second of the devices that the pipeline has to feed, and how many are fetched for each.
DEVICES = {200: 2048, 300: 3072, 400: 4096}

# The nearest that img2dataset has to our work: resized to the shorter side, centre crop, no re-encoding saved on.
PEER = """
import sys
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], input_format="txt", output_folder=sys.argv[2], output_format="files",
        image_size=224, resize_mode="center_crop", processes_count=1, thread_count=32,
        number_sample_per_shard=100000, enable_wandb=False)
"""


def run(settings: Settings) -> None:
    """Prints CPU time by stage, the ratios to both, and how long a device of its own waits."""
    peer = os.environ.get("IMG2DATASET", "")
    if not peer:
        print(
            "img2dataset is not measured: pip install img2dataset==1.47.0 'setuptools<81' into a virtual environment"
            " of its own, and set IMG2DATASET to its python"
        )
    costs, ratios = [], []
    for name, write, different, count in SETS:
        folder = settings.home / write.__name__
        names = write(folder, different)
        with server(folder, LATENCY) as address, child("instant") as ours, child("memory") as memory:
            urls = [f"{address}/{names[number % different]}" for number in range(count)]
            paths = [str(folder / one) for one in names]
            rounds = [one_round(ours, memory, urls, paths, peer) for _ in range(ROUNDS + 1)][1:]
        stages = [median_and_range([one[stage] * 1000 for one in rounds]) for stage in STAGES]
        costs.append((name, *stages))
        ratios.append((name, *(summary(rounds, column) for column in ("ours", "memory", "peer"))))
        ratios[-1] += tuple(summary_of_ratio(rounds, below) for below in ("memory", "peer"))
    print_table(
        f"The data path alone, CPU milliseconds of an image over HTTP, {ROUNDS} rounds: median (range)",
        ("", "hand-over", "decode", "fetch", "rest"),
        costs,
    )
    print_table(
        f"Images per CPU-second, {ROUNDS} rounds: median (range)",
        ("", "data path", "decode from memory", "img2dataset", "to memory", "to img2dataset"),
        ratios,
    )


STAGES = ("encode", "decode", "fetch", "rest")


def one_round(ours: Child, memory: Child, urls: list[str], paths: list[str], peer: str) -> dict[str, float]:
    """CPU seconds of an image: in all, by stage, from memory, and of img2dataset where it can be had."""
    answer = ours.ask(urls)
    assert not answer["failures"], answer["failures"][:3]
    measured = {stage: answer["cpu"][stage] / len(urls) for stage in STAGES}
    measured["ours"] = sum(measured.values())
    measured["memory"] = memory.ask(paths)["cpu"] / len(paths)
    if peer:
        # A run over a few images tells what the start costs.
        few = len(urls) // 8
        measured["peer"] = (run_peer(peer, urls) - run_peer(peer, urls[:few])) / (len(urls) - few)
    return measured


def run_peer(python: str, urls: list[str]) -> float:
    """CPU seconds of img2dataset and its children over these addresses."""
    folder = Path(tempfile.mkdtemp(prefix="lookalike-bench-"))
    try:
        listed, program = folder / "urls.txt", folder / "peer.py"
        listed.write_text("\n".join(urls))
        program.write_text(PEER)
        environment = {**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"}
        started = subprocess.Popen(
            [python, str(program), str(listed), str(folder / "out")],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
        written = len(list((folder / "out").rglob("*.jpg")))
        assert written == len(urls), f"img2dataset wrote {written} of {len(urls)} images"
        return usage.ru_utime + usage.ru_stime
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def summary(rounds: list[dict[str, float]], column: str) -> str:
    """Images per CPU-second."""
    values = [1 / one[column] for one in rounds if column in one]
    return median_and_range(values, 0) if values else "-"


def summary_of_ratio(rounds: list[dict[str, float]], below: str) -> str:
    """Ours over the other's, round by round."""
    values = [one[below] / one["ours"] for one in rounds if below in one]
    return median_and_range(values) if values else "-"


def feed_devices(settings: Settings) -> None:
    """How much of its rate a device keeps that computes beside the CPU, as a GPU does, in batches of 128."""
    folder = settings.home / write_small.__name__
    names = write_small(folder, 256)
    rounds: dict[int, list[Any]] = {rate: [] for rate in DEVICES}
    with server(folder, LATENCY) as address, ExitStack() as stack:
        sides = {rate: stack.enter_context(child(f"sleep:{rate}")) for rate in DEVICES}
        for _ in range(ROUNDS):
            for rate, side in sides.items():
                urls = [f"{address}/{names[number % len(names)]}" for number in range(DEVICES[rate])]
                rounds[rate].append(side.ask(urls))
    rows = []
    for rate, answers in rounds.items():
        cpu = statistics.median(sum(one["cpu"].values()) / one["seconds"] for one in answers)
        rows.append(
            (
                f"{rate} images/s",
                median_and_range([one["steady"] / rate for one in answers]),
                median_and_range([one["busy"] for one in answers]),
                median_and_range([one["fill"] for one in answers]),
                f"{cpu:.2f}",
            )
        )
    print_table(
        f"A device beside the CPU, batches of 128, 400-px JPEG over HTTP, {ROUNDS} rounds: median (range)",
        ("device", "rate kept", "time busy", "batch fill", "cores used"),
        rows,
    )
