"""`lookalike encoders list` as people and programs call it, in a process of its own."""

import json
from pathlib import Path

from lookalike.encoders import ENCODERS
from tests.servers import Lookalike
from workers import measurements
from workers.measurements import Measurement, Setup


def test_the_list_says_what_an_encoder_does_here(tmp_path: Path, database_url: str, broker_url: str) -> None:
    """Weights in the operator's folder, the speed that was measured, and what the archive keeps."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "resnet50-11ad3fa6.pth").touch()
    setup = Setup("resnet50", "digest", "Some GPU", "float16", 1)
    measurements.remember(tmp_path, setup, Measurement(256, 2481.5, "11ad3fa6" + "0" * 56))
    system = Lookalike(
        tmp_path, database_url, broker_url, LOOKALIKE_WEIGHTS_DIR=str(weights), HOME=str(tmp_path)
    )
    system.run("encoders", "add", "dinov2-vits14")
    rows = json.loads(system.run("encoders", "list", "--json").stdout)["encoders"]
    assert [row["name"] for row in rows] == list(ENCODERS)
    listed = {row["name"]: row for row in rows}
    assert {name for name, row in listed.items() if row["on_machine"]} == {
        "efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2", "resnet50",
    }  # fmt: skip
    resnet = listed["resnet50"]
    assert (resnet["images_per_second"], resnet["batch_size"]) == (2481.5, 256)
    assert (resnet["device"], resnet["runtime"], len(resnet["digest"])) == ("Some GPU", "float16", 64)
    assert (resnet["dimension"], resnet["licence"], resnet["in_archive"]) == (2048, "BSD-3-Clause", False)
    assert listed["efficientnet-lite1"]["digest"] == "77cc7160"
    assert listed["dinov2-vits14"]["in_archive"] is listed["dinov2-vits14"]["active"] is True
    table = system.run("encoders", "list").stdout
    assert "images/s" in table
    assert "11ad3fa6" in table
