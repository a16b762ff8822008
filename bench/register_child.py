"""`python -m bench.register_child DATABASE_URL SOURCE CHUNK_SIZE`: registers a source as `lookalike add` does.

Prints, in JSON, what it took: seconds, CPU seconds of this process and of the server's, memory; and the seconds of
reading the source once more without a database.
"""

import json
import sys
import time

from bench.usage import measure_memory, measure_now, reset_memory, server_seconds
from lookalike.database import connect
from lookalike.settings import Settings
from orchestrator.intake import read_in
from orchestrator.progress import Intake
from orchestrator.sources import open_source


def main(database_url: str, source: str, chunk_size: int) -> None:
    settings, intake = Settings(_env_file=None, chunk_size=chunk_size), Intake()
    with connect(database_url, application_name="bench") as connection:
        idle = measure_now()
        reset_memory()
        since, used, served = time.perf_counter(), time.process_time(), server_seconds(connection)
        read_in(connection, source, settings, intake)
        answer = {
            "new": intake.registered.new,
            "seconds": time.perf_counter() - since,
            "cpu": time.process_time() - used,
            "server_cpu": server_seconds(connection) - served,
            "idle": idle,
            "peak": measure_memory(),
        }
    since = time.perf_counter()
    for _ in open_source(source, settings):
        pass
    print(json.dumps({**answer, "reading": time.perf_counter() - since}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
