"""Search for the beginning of a key and for words of titles: what is found, in which order, and by which road."""

from dataclasses import replace

import pytest

from explorer import finding
from explorer.finding import find
from lookalike import ledger
from lookalike.database import Connection
from tests.factories import make_images

IMAGES = 300


@pytest.fixture
def titled(connection: Connection) -> Connection:
    """Images of which every second is a portrait, every tenth a map, and three, far apart, of Siena."""
    images = [
        replace(image, title=title_of(number)) for number, image in enumerate(make_images(IMAGES, "titled"))
    ]
    ledger.register(connection, images, chunk_size=64)
    connection.execute("analyze images")
    return connection


def title_of(number: int) -> str:
    words = ["Portrait" if number % 2 == 0 else "Landscape"]
    words += ["map"] if number % 10 == 0 else []
    words += ["Siena"] if number in (7, 150, 299) else []
    return " ".join(words)


def keys(connection: Connection, text: str, limit: int = 40) -> list[str]:
    """What all pages of a search show together; none is shown twice."""
    found, cursor = [], None
    while True:
        page = find(connection, text, cursor, limit)
        assert len(page.items) <= limit
        found += [item.key for item in page.items]
        cursor = page.next
        if cursor is None:
            assert len(found) == len(set(found))
            return found


def key(number: int) -> str:
    return f"titled/{number:05}"


@pytest.mark.parametrize("walk", [10, 37, 10_000])
@pytest.mark.parametrize("plenty", [0, 2, 10**9], ids=["always walk", "as it is", "always ask the index"])
def test_both_roads_find_the_same(
    titled: Connection, monkeypatch: pytest.MonkeyPatch, walk: int, plenty: int
) -> None:
    """All images that fit, in the order of their keys, in pages of any size, however far apart they are."""
    monkeypatch.setattr(finding, "WALK_AT_MOST", walk)
    monkeypatch.setattr(finding, "PLENTY", plenty)
    for limit in (3, 40):
        assert keys(titled, "portrait", limit) == [key(n) for n in range(0, IMAGES, 2)]
        assert keys(titled, "portrait map", limit) == [key(n) for n in range(0, IMAGES, 10)]
        assert keys(titled, "landscape sie", limit) == [key(7), key(299)]
        assert keys(titled, "fresco", limit) == []


def test_the_road_is_chosen_by_how_many_fit(titled: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the statistics of words, not by guess: frequent words are walked for, rare ones are asked of the index."""
    monkeypatch.setattr(finding, "WALK_AT_MOST", 100)

    def walks(words: str) -> bool:
        return finding._are_many(titled, {"words": words, "limit": 10})

    assert walks("'portrait'")
    assert not walks("'map'")
    assert not walks("'siena':*")


def test_a_walk_has_an_end(titled: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page reads so many titles and no more: it may be empty, and says where to go on."""
    monkeypatch.setattr(finding, "WALK_AT_MOST", 50)
    monkeypatch.setattr(finding, "PLENTY", 0)
    first = find(titled, "siena", None, 3)
    assert [item.key for item in first.items] == [key(7)]
    second = find(titled, "siena", first.next, 3)
    assert (second.items, second.next is None) == ([], False)


def test_keys_come_before_titles(titled: Connection) -> None:
    """What a key begins with is not shown again for its title, and unwanted images not at all."""
    images = [replace(image, title="x map") for image in make_images(3, "map")]
    ledger.register(titled, images, chunk_size=64)
    titled.execute(
        "insert into encoders (name, dimension, distance, vectors) values ('tiny', 1, 'halved', 'none')"
    )
    titled.execute("insert into unwanted_sets (name, encoder, threshold) values ('cards', 'tiny', 0)")
    titled.execute(
        "insert into unwanted_images (set_id, image_id, distance, state)"
        " select s.id, i.id, 0, 'accepted' from unwanted_sets s, images i where key in ('map/00001', 'titled/00010')"
    )
    for limit in (1, 2, 40):
        assert keys(titled, "map", limit) == [
            *("map/00000", "map/00002"),
            *(key(n) for n in range(0, IMAGES, 10) if n != 10),
        ]
    assert [item.key for item in find(titled, "map", include_unwanted=True, limit=3).items][1] == "map/00001"
