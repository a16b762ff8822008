"""The demo as a stranger runs it."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from lookalike.database import Connection
from tests.servers import Lookalike


def test_the_demo_prints_neighbours_and_writes_a_contact_sheet(
    lookalike: Callable[..., Lookalike], connection: Connection, tmp_path: Path
) -> None:
    """Every copy is a neighbour of its original, the sheet is a picture, a second run embeds nothing again."""
    system = lookalike()
    first = system.run("demo").stdout

    sheet = Path(first.rsplit("contact sheet: ", 1)[1].strip())
    with Image.open(sheet) as picture:
        assert min(picture.size) > 500
    cat = first.split("demo/chelsea/original.jpg", 1)[1].split("\n\n")[0].splitlines()
    names = [word for line in cat for word in line.split() if word.startswith("demo/chelsea/")]
    assert {"cropped", "grey", "recompressed", "rotated"} <= {Path(name).stem for name in names[:4]}

    stored = connection.execute("select max(stored_at) from vectors_efficientnet_lite0").fetchone()
    system.run("demo")
    assert connection.execute("select max(stored_at) from vectors_efficientnet_lite0").fetchone() == stored
