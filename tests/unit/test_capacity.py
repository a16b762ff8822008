"""What a backfill would take, worked out by hand beside the code."""

from dataclasses import replace

import pytest

from cli.plan import host_ceilings
from lookalike.capacity import Cost, Measured, find_pace, plan, vector_bytes
from lookalike.images import Image
from lookalike.limits import SENTENCES
from lookalike.settings import Settings

# Two cores; an image takes 1 ms of CPU to fetch, 2 to decode, 16 to encode, 1 to store: 20 in all, so 100 images/s.
CPU_MACHINE = Measured(
    seen=500,
    embedded=400,
    cores=2,
    device="cpu",
    read=0.00002,
    register=0.00003,
    fetch=Cost(0.001, 0.00125),
    decode=Cost(0.002),
    encode=Cost(0.016),
    store=Cost(0.001, 0.0005),
    database=0.001,
    bytes_fetched=50_000.0,
    archive_bytes=2_000.0,
    log_bytes=7_000.0,
    dimension=1280,
)


def test_on_a_cpu_all_stages_share_the_cores() -> None:
    """2 cores at 20 ms an image are 100 images/s, and the network, which takes most of them, is the limit."""
    pace = find_pace(CPU_MACHINE)
    assert pace.images_per_second == pytest.approx(100)
    assert pace.limit == "encode"
    assert pace.sentence.startswith(SENTENCES["encode"])
    assert pace.stages == pytest.approx(
        {"fetch": 800, "decode": 1000, "encode": 125, "store": 2000, "cores": 100}
    )


@pytest.mark.parametrize(
    ("stage", "cost", "rate"),
    [
        ("fetch", Cost(0.001, 0.05), 20),
        ("decode", Cost(0.002, 0.025), 40),
        ("store", Cost(0.001, 0.02), 50),
    ],
)
def test_a_stage_that_its_threads_hold_up_is_the_limit(stage: str, cost: Cost, rate: float) -> None:
    """A slow host, a single decoder thread or a slow database limits the worker, whatever its cores could do."""
    pace = find_pace(replace(CPU_MACHINE, **{stage: cost}))
    assert (pace.limit, pace.sentence) == (stage, SENTENCES[stage])
    assert pace.images_per_second == pytest.approx(rate)


def test_a_boundless_gpu_leaves_the_cores_to_the_other_stages() -> None:
    """4 ms of CPU for fetch, decode and store on two cores are 500 images/s; decoding takes most of them."""
    pace = find_pace(CPU_MACHINE, boundless=True)
    assert pace.images_per_second == pytest.approx(500)
    assert pace.limit == "decode"
    assert "encode" not in pace.stages


def test_a_measured_gpu_is_no_upper_bound() -> None:
    """Where the sample was encoded on a GPU, the worker is a GPU worker and says what it does."""
    measured = replace(CPU_MACHINE, device="cuda", encode=Cost(0.0005, 0.004))
    capacity = plan(measured, 1_000_000)
    assert capacity.gpu_measured
    assert capacity.worker is capacity.gpu_worker
    assert capacity.worker.images_per_second == pytest.approx(250)
    assert capacity.worker.limit == "encode"


def test_hours_fall_with_workers_until_a_ceiling() -> None:
    """40 million images at 100 images/s are 111 hours, 28 with four workers, and never under the database's 11.1."""
    capacity = plan(CPU_MACHINE, 40_000_000)
    assert capacity.ceilings == pytest.approx({"database": 1000, "orchestrator": 20_000})
    assert capacity.hours(capacity.worker, 1) == pytest.approx(111.11, abs=0.01)
    assert capacity.hours(capacity.worker, 4) == pytest.approx(27.78, abs=0.01)
    assert capacity.hours(capacity.worker, 100) == pytest.approx(11.11, abs=0.01)
    assert capacity.useful_workers(capacity.worker) == 10
    assert capacity.register_hours == pytest.approx(40e6 * 0.00005 / 3600)


def test_hosts_with_a_rate_are_a_ceiling() -> None:
    """Half of the images at 8 requests a second, two for each, are 8 images a second in all; files have no limit."""
    services = [Image(f"a{n}", f"https://iiif.example.org/{n}", "iiif") for n in range(5)]
    files = [Image(f"b{n}", f"file:///{n}.jpg") for n in range(5)]
    settings = Settings(_env_file=None, hosts={"iiif.example.org": {"rate": 8}})
    hosts = host_ceilings(settings, services + files)
    assert hosts == {"host iiif.example.org": 8}
    assert plan(CPU_MACHINE, 288_000, hosts).hours(plan(CPU_MACHINE, 1).worker, 100) == 10


def test_bytes_are_those_of_the_images_that_get_a_vector() -> None:
    """Of 1,000,000 images four fifths have a vector; all are fetched and have a row."""
    capacity = plan(CPU_MACHINE, 1_000_000)
    assert capacity.vectors == 800_000
    assert capacity.sizes.fetched == 50_000_000_000
    assert capacity.sizes.archive == 2_000_000_000
    assert capacity.sizes.vectors == round(800_000 * vector_bytes(1280))
    # 305 bytes and an eighth for each of 1,280 bits.
    assert capacity.sizes.index == 800_000 * 465
    assert capacity.sizes.log == 7_000_000_000 + capacity.sizes.index
    assert capacity.sizes.stored == sum(
        (capacity.sizes.vectors, capacity.sizes.index, capacity.sizes.archive)
    )


def test_the_index_is_built_a_partition_at_a_time() -> None:
    """One of 8 partitions of 800,000 codes: 100,000 x (715 + 160) bytes and a quarter; 0.4 ms of a core for a code."""
    capacity = plan(CPU_MACHINE, 1_000_000)
    assert capacity.index_memory == int(100_000 * 875 * 1.25)
    assert capacity.index_core_hours == pytest.approx(800_000 * 0.0004 / 3600)


def test_a_fast_gpu_is_fed_by_so_many_cores() -> None:
    """1,000 images a second at 1 + 2 + 1 ms of CPU take four cores."""
    assert plan(CPU_MACHINE, 1000).gpu_cores == pytest.approx(4)


@pytest.mark.parametrize(
    ("dimension", "measured"), [(384, 1070), (512, 1410), (768, 2092), (1280, 3091), (4096, 9278)]
)
def test_rows_of_vectors_take_what_tables_of_them_took(dimension: int, measured: int) -> None:
    """The layout of a row says within 3 % what tables of 8,000 (1,280: a million) vectors took on disk."""
    assert vector_bytes(dimension) == pytest.approx(measured, rel=0.03)
