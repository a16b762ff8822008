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
        help="Folder, CSV or JSONL file, s3://bucket/prefix, IIIF manifest or collection (file or URL),"
        " - for standard input."
    ),
]
