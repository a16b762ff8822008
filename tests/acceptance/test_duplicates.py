"""Near-duplicates on photographs, with real workers: copies are found, turned ones by an option, others are not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import ImageEnhance, ImageOps

from lookalike.database import Connection
from tests.pictures import jpeg, photographs
from tests.servers import Lookalike

# Photographs of things that have an upside: a retina looks the same however it lies, and so does gravel.
CHOSEN = (0, 4, 15, 19, 21, 22)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photographs, each with a grey copy, a lighter and smaller one, a cropped one, and one lying on its side."""
    target = tmp_path / "scans"
    target.mkdir()
    for number in CHOSEN:
        picture = photographs()[number]
        width, height = picture.size
        copies = {
            "original": picture,
            "grey": picture.convert("L").convert("RGB"),
            "rescan": ImageEnhance.Brightness(picture.resize((width * 3 // 4, height * 3 // 4))).enhance(1.1),
            "cropped": picture.crop((width // 20, height // 20, width - width // 20, height - height // 20)),
            "turned": ImageOps.mirror(picture).rotate(-90, expand=True),
        }
        for name, copy in copies.items():
            (target / f"{number}-{name}.jpg").write_bytes(jpeg(copy))
    return target


@pytest.mark.slow
def test_copies_are_grouped_and_turned_ones_by_an_option(
    lookalike: Callable[..., Lookalike], connection: Connection, folder: Path
) -> None:
    """Nearly all copies are in the group of their original, and nothing else is."""
    system = lookalike()
    system.run("run", str(folder))
    found = json.loads(system.run("duplicates", "find", "--json").stdout)
    assert found["settled"]
    upright = groups(connection)
    assert all(len({number for number, _ in group}) == 1 for group in upright), upright
    assert sum(len(group) for group in upright) >= 0.85 * 4 * len(CHOSEN)
    assert not any(name == "turned" for group in upright for _, name in group)

    system.run("duplicates", "find", "--turned")
    turned = groups(connection)
    assert all(len({number for number, _ in group}) == 1 for group in turned), turned
    ways = connection.execute("select distinct turn from copies where turn <> 'upright'").fetchall()
    assert sum(name == "turned" for group in turned for _, name in group) >= len(CHOSEN) - 1
    # The original is registered before or after its copy: the way there, or the way back, which is the same.
    assert ways == [("mirrored, rotated 90",)]

    listed = json.loads(system.run("duplicates", "list", "--json").stdout)["members"]
    assert listed[0]["representative"]
    assert {"group", "size", "image", "distance", "work"} <= listed[0].keys()


def groups(connection: Connection) -> list[set[tuple[str, str]]]:
    """Each group as pairs of photograph and copy."""
    rows = connection.execute('select array_agg(image) from duplicates group by "group"').fetchall()
    return [
        {tuple(key.removeprefix("scans/").removesuffix(".jpg").split("-")) for key in keys}
        for (keys,) in rows
    ]
