"""`python -m bench.worker_child`: a worker as operators start it, which tells on demand what it has used.

For each line of input it prints, as JSON, CPU seconds by threads, and passes and images of its encoder, since it began.
"""

import json
import os
import sys
import threading

from bench.usage import measure_threads
from cli.worker import run_worker
from workers.network import Encoder

encode = Encoder.encode
counted = {"passes": 0, "images": 0}
lock = threading.Lock()


def encode_and_count(encoder, batch):  # type: ignore[no-untyped-def]
    """Encoder.encode, counted."""
    with lock:
        counted["passes"] += 1
        counted["images"] += len(batch)
    return encode(encoder, batch)


def answer(output: int) -> None:
    """Answers until the other side closes its end."""
    for _ in sys.stdin:
        os.write(output, json.dumps({"cpu": measure_threads(), **counted}).encode() + b"\n")


if __name__ == "__main__":
    Encoder.encode = encode_and_count  # type: ignore[method-assign]
    answers = os.dup(1)
    os.dup2(2, 1)  # Celery greets on standard output
    threading.Thread(target=answer, args=(answers,), name="answer", daemon=True).start()
    run_worker(leash=False)
