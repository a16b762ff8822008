"""What sparing hosts costs: the data path with its gate, limits kept in Valkey, against a plain queue in its place."""

from contextlib import ExitStack

from bench.pictures import write_small
from bench.processes import child, server
from bench.table import median_and_range, print_table
from bench.usage import GROUPS
from lookalike import services
from lookalike.settings import Settings

ROUNDS = 5
LATENCY = 0.05
PICTURES = 256
IMAGES = 2048
# Name, kind of process, settings.
SIDES = (
    ("no gate", "ungated", {}),
    ("32 at once (default)", "instant", {}),
    ("no limit", "instant", {"LOOKALIKE_HOST_CONCURRENCY": "0"}),
    ("32 at once, 2,000/s", "instant", {"LOOKALIKE_HOST_RATE": "2000"}),
)


def run(settings: Settings) -> None:
    """Prints CPU milliseconds of an image without decoding and encoding, and what the gate adds."""
    folder = settings.home / write_small.__name__
    names = write_small(folder, PICTURES)
    broker = services.up(settings).broker_url
    rounds = []
    with server(folder, LATENCY) as address, ExitStack() as stack:
        sides = [
            stack.enter_context(child(kind, BROKER_URL=broker, **environment))
            for _, kind, environment in SIDES
        ]
        urls = [f"{address}/{names[number % PICTURES]}" for number in range(IMAGES)]
        for _ in range(ROUNDS + 1):
            answers = [side.ask(urls) for side in sides]
            assert not any(answer["failures"] for answer in answers)
            rounds.append(answers)
    parts = ("fetch", "rest")
    costs = [
        [1000 * sum(answer["cpu"][part] for part in parts) / IMAGES for answer in answers]
        for answers in rounds[1:]
    ]
    whole = [
        [1000 * sum(answer["cpu"][group] for group in (*GROUPS, "rest")) / IMAGES for answer in answers]
        for answers in rounds[1:]
    ]
    print_table(
        f"Sparing a host, CPU milliseconds of an image over HTTP, {ROUNDS} rounds: median (range)",
        ("", "fetch and gate", "to no gate", "all stages", "to no gate"),
        [
            (
                name,
                median_and_range([one[side] for one in costs], 3),
                median_and_range([one[side] - one[0] for one in costs], 3),
                median_and_range([one[side] for one in whole]),
                median_and_range([one[side] / one[0] for one in whole]),
            )
            for side, (name, *_) in enumerate(SIDES)
        ],
    )
