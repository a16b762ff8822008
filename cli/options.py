"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Encoder = Annotated[str | None, typer.Option(help="Another encoder than the active one.")]
Count = Annotated[int, typer.Option("-k", help="How many neighbours.", min=1, max=1000)]
MaxDistance = Annotated[float | None, typer.Option(help="Only neighbours within this distance (0..1).")]
Sheet = Annotated[Path | None, typer.Option(help="Also write a contact sheet picture to this file.")]
Sources = Annotated[
    list[str] | None,
    typer.Argument(
        help="Folder, CSV or JSON lines (file or URL), s3://bucket/prefix, S3 Inventory, IIIF manifest, collection or"
        " change stream, Wellcome's catalogue or snapshot, - for standard input."
    ),
]
