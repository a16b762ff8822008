"""docs/CAPACITY.md is arithmetic: its tables of results are what lookalike/capacity.py makes of its figures."""

import re
from pathlib import Path

import pytest

from cli.plan import host_ceilings
from lookalike.capacity import Capacity, Cost, Measured, plan
from lookalike.encoders import find_encoder
from lookalike.images import Image
from lookalike.settings import HostLimit, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "CAPACITY.md").read_text()
IMAGES = 40_000_000
COUNTS = (1, 2, 4)


def table(heading: str) -> list[list[str]]:
    """The rows of the first table behind a heading."""
    text = PAGE.split(f"## {heading}\n", 1)[1]
    rows = re.search(r"^\|.*\n\|[-|: ]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert rows is not None, heading
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in rows[1].splitlines()]


def number(text: str) -> float:
    return float(text.replace(",", "").split()[0])


def figures() -> dict[str, float]:
    """What was measured of an image, by name; milliseconds and bytes."""
    return {name: number(value) for name, value, *_ in table("What an image costs")}


def measured(cores: int, network: float | None, dimension: int = 1280) -> Measured:
    """A worker on so many cores, with a GPU whose network does so many images a second, or none."""
    one = figures()
    store, database = one["store, the worker's side"] / 1000, one["store, one connection of Postgres"] / 1000
    threads = 2 if network is None else 4
    encode = Cost(one["encode on a CPU"] / 1000) if network is None else Cost(0.0, 1 / network)
    return Measured(
        seen=1,
        embedded=1,
        cores=cores,
        device="cpu" if network is None else "cuda",
        read=0.0,
        register=one["read and register"] / 1000,
        fetch=Cost(one["fetch"] / 1000),
        decode=Cost(one["decode"] / 1000),
        encode=encode,
        store=Cost(store, (store + database) / threads),
        database=database,
        bytes_fetched=one["fetched"],
        archive_bytes=one["rows of images and labels"],
        log_bytes=one["write-ahead log"],
        dimension=dimension,
    )


def capacity_of(machine: list[str]) -> Capacity:
    """What a machine of the table of machines makes of all images."""
    _, cores, _, network, *_ = machine
    return plan(measured(int(cores), number(network) if network else None), IMAGES)


def result_of(machine: list[str]) -> list[str]:
    """A row of the main table."""
    name, _, _, _, on_demand, spot = machine
    capacity = capacity_of(machine)
    pace = capacity.worker
    alone = capacity.hours(pace, 1)
    cost = [f"{alone * number(price):,.0f}" if price else "" for price in (on_demand, spot)]
    hours = [f"{capacity.hours(pace, count):,.1f}" for count in COUNTS]
    return [name, f"{pace.images_per_second:,.0f}", pace.limit, *hours, *cost]


def sizes_of(encoder: str) -> list[str]:
    """A row of the table of sizes, in GB."""
    dimension = find_encoder(encoder).dimension
    capacity = plan(measured(8, 1000.0, dimension), IMAGES)
    sizes = capacity.sizes
    parts = [sizes.vectors, sizes.index, sizes.archive, sizes.stored, capacity.index_memory]
    return [
        f"`{encoder}`",
        f"{dimension:,}",
        *(f"{part / 1e9:,.1f}" for part in parts),
        f"{capacity.index_core_hours:,.1f}",
    ]


def test_the_main_table_is_what_the_plan_says() -> None:
    """Images a second, limit, hours and cost of each machine, from its cores, its GPU and its price."""
    machines = table("Machines and prices")
    assert len(machines) > 5
    assert table("Time and cost") == [result_of(machine) for machine in machines]


def test_the_sizes_are_what_the_plan_says() -> None:
    """Bytes of vectors, index and rows, memory and core-hours to build the index, of each encoder."""
    rows = table("Postgres: size, memory, index")
    assert rows == [sizes_of(row[0].strip("`")) for row in rows]


@pytest.mark.parametrize("row", table("Hosts and networks") if "## Hosts and networks" in PAGE else [])
def test_the_days_that_hosts_allow_are_what_the_plan_says(row: list[str]) -> None:
    """All images from one host with a rate, an image service taking two requests for each."""
    _, kind, rate, days = row
    image = Image("a", "https://example.org/a", "iiif" if kind == "image service" else "file")
    settings = Settings(_env_file=None, hosts={"example.org": HostLimit(rate=number(rate))})
    capacity = plan(measured(8, 10_000.0), IMAGES, host_ceilings(settings, [image]))
    assert days == f"{capacity.hours(capacity.worker, 100) / 24:,.1f}"
