"""The budget between fetch and decode: bounded by number and bytes, and no file waits for ever."""

import threading
import tracemalloc

from lookalike.settings import Settings
from tests.servers import http_server, wait_until
from workers.budget import Budget
from workers.fetch import Fetcher


def test_bytes_wait_until_others_are_given_back():
    """A younger file waits for room while an older one holds it."""
    budget = Budget(8, 100)
    old, young = budget.open(), budget.open()
    old.reserve(80)
    thread = threading.Thread(target=young.reserve, args=(40,))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    old.close()
    thread.join(5)
    assert not thread.is_alive()
    assert young.size == 40


def test_the_oldest_file_never_waits():
    """A file larger than the budget gets through, and half-read files cannot block each other."""
    budget = Budget(8, 100)
    old, young = budget.open(), budget.open()
    young.reserve(90)
    old.reserve(500)
    assert old.size == 500


def test_no_more_files_than_places():
    """A share is waited for while all places are taken."""
    budget = Budget(1, 100)
    first = budget.open()
    opened = []
    thread = threading.Thread(target=lambda: opened.append(budget.open()))
    thread.start()
    thread.join(0.05)
    assert not opened
    first.close()
    first.close()
    wait_until(lambda: bool(opened), 5)
    thread.join(5)
    blocked = threading.Thread(target=budget.open, daemon=True)
    blocked.start()
    blocked.join(0.05)
    assert blocked.is_alive()  # closing twice gave back one place
    opened[0].close()
    blocked.join(5)


def test_many_threads_stay_within_the_limit_and_one_file():
    """Whatever the interleaving, what is held never exceeds the limit and one file."""
    budget, most, size = Budget(16, 1000), 0, 300
    lock, held = threading.Lock(), [0]

    def fetch() -> None:
        nonlocal most
        for _ in range(50):
            share = budget.open()
            for _ in range(6):
                share.reserve(size // 6)
                with lock:
                    held[0] += size // 6
                    most = max(most, held[0])
            with lock:
                held[0] -= size
            share.close()

    threads = [threading.Thread(target=fetch) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert most <= 1000 + size


def test_an_idle_connection_keeps_nothing_of_what_it_fetched():
    """What a budget no longer counts is really gone: libcurl's handles are kept, their last answers are not."""
    with http_server({"/scan.jpg": bytes(16 * 2**20)}) as address:
        fetcher = Fetcher(Settings(_env_file=None))
        tracemalloc.start()
        try:
            assert len(fetcher.fetch(f"{address}/scan.jpg", "file", 384).data) == 16 * 2**20
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            fetcher.close()
    assert kept < 2**20
