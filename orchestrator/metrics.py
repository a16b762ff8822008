"""What the orchestrator tells Prometheus of its own work; what it sees of the archive is in orchestrator/watch.py."""

from prometheus_client import Counter, Gauge

from lookalike.metrics import new_registry

REGISTRY = new_registry()
PUBLISHED = Counter(
    "lookalike_published_chunks",
    "Chunks that were leased and published.",
    ["encoder", "lane"],
    registry=REGISTRY,
)
PASSES = Counter("lookalike_dispatch_passes", "Passes over all lanes.", registry=REGISTRY)
PASS_SECONDS = Counter("lookalike_dispatch_seconds", "Seconds that those passes took.", registry=REGISTRY)
PASSED = Gauge(
    "lookalike_dispatch_timestamp_seconds",
    "When the last pass ended, in seconds since 1970. It needs database and broker.",
    registry=REGISTRY,
)
INTERRUPTIONS = Counter(
    "lookalike_dispatch_interruptions", "Times that database or broker were away.", registry=REGISTRY
)
EXPIRED = Counter(
    "lookalike_expired_leases",
    "Leases that ran out: running (a worker fell silent), queued (nobody took the message in time).",
    ["state"],
    registry=REGISTRY,
)
LOST = Counter(
    "lookalike_lost_messages",
    "Messages that the broker lost and that are published again.",
    registry=REGISTRY,
)
WIPES = Counter(
    "lookalike_broker_wipes", "Times that the broker came back without its data.", registry=REGISTRY
)
DEAD = Counter(
    "lookalike_dead_images", "Images that crashed every worker and were given up.", registry=REGISTRY
)
for _state in ("running", "queued"):
    EXPIRED.labels(_state)
