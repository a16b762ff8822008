"""What analysts are given: the notebook, run in a real kernel, and README's SQL, on a real archive."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

from cli.demo import find_photographs, make_copies, write_table
from lookalike.database import Connection
from tests.servers import ROOT, Lookalike

NOTEBOOK = ROOT / "notebooks" / "look-alikes.ipynb"
FIGURES = ("vectors", "neighbours", "outside", "duplicates", "clusters", "colours", "distances", "novelty")

# What each cell shows, by the id of the cell: kinds of output and their text.
Shown = dict[str, list[dict[str, str]]]


class ThisPython(KernelManager):
    """Starts kernels with the interpreter of the test; the machine need not have any installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, language="python")


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    """The notebook as it is kept."""
    return nbformat.read(NOTEBOOK, as_version=4)


def announce_photographs(folder: Path) -> str:
    """Writes the photographs of the demo and their copies to a folder; returns the table that announces them by their
    paths, one digitised on each day."""
    home = folder / "photographs"
    make_copies(find_photographs(), home)
    table = write_table(home, home.as_uri())
    lines = []
    for number, line in enumerate(table.read_text().splitlines()):
        day = f"2024-{1 + number // 28:02}-{1 + number % 28:02}"
        lines.append(json.dumps({**json.loads(line), "digitised": day}) + "\n")
    table.write_text("".join(lines))
    return str(table)


def run(notebook: nbformat.NotebookNode, system: Lookalike, folder: Path) -> Shown:
    """Runs all cells in a folder, with the settings of the system. A cell that fails fails the test."""
    client = NotebookClient(
        notebook, timeout=240, km=ThisPython(), resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=system.environment)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    return {cell.id: [output.data for output in cell.outputs] for cell in cells}


def check_figures(shown: Shown) -> None:
    """Each figure is a picture with its caption, and says of none that something is missing; the table has copies of
    the first example."""
    for number, name in enumerate(FIGURES, 1):
        picture, caption = shown[f"figure-{name}"]
        assert len(picture["image/png"]) > 10_000, name
        assert caption["text/html"].startswith(f"<p>Figure {number}. ")
        assert " yet" not in caption["text/html"]
        assert "nothing came before" not in caption["text/html"]
    first = shown["examples"][0]["text/plain"].split("'")[1]
    assert first.rpartition("/")[0] in shown["table-catalogue"][0]["text/html"].partition("<p>")[0]


def check_readme_sql(connection: Connection) -> None:
    """Each statement of README's SQL recipes runs as an analyst; all but that for failures find rows."""
    connection.execute("set role analyst")
    blocks = re.findall(r"```sql\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    statements = [part.strip() for part in re.sub(r"--.*", "", "".join(blocks)).split(";") if part.strip()]
    assert len(statements) > 25
    for statement in statements:
        cursor = connection.execute(statement.encode())
        if cursor.description and "failed_images" not in statement:
            assert cursor.fetchall(), statement


@pytest.mark.slow
def test_the_notebook_and_the_sql_of_readme_find_what_is_there(
    lookalike: Callable[..., Lookalike],
    notebook: nbformat.NotebookNode,
    connection: Connection,
    tmp_path: Path,
) -> None:
    """In an archive with days of digitisation, duplicates, clusters and unwanted images."""
    system = lookalike()
    system.run("run", announce_photographs(tmp_path))
    system.run("duplicates", "find", "--max-distance", "0.15", "--likeness", "0.5")
    system.run("clusters", "make", "--clusters", "8")
    examples = tmp_path / "examples.txt"
    examples.write_text(
        "".join(f"demo/{name}/original.jpg\n" for name in ("page", "text", "brick", "grass", "gravel"))
    )
    system.run("unwanted", "learn", "textures", "--examples", str(examples))

    check_figures(run(notebook, system, tmp_path))
    check_readme_sql(connection)


@pytest.mark.slow
def test_an_archive_of_one_image_is_no_error(
    lookalike: Callable[..., Lookalike], notebook: nbformat.NotebookNode, tmp_path: Path
) -> None:
    """Without neighbours, duplicates, clusters or earlier images every cell ends, and says what is missing."""
    system = lookalike()
    announce_photographs(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "photographs" / "chelsea" / "original.jpg").rename(tmp_path / "one" / "cat.jpg")
    system.run("run", str(tmp_path / "one"))
    shown = run(notebook, system, tmp_path)

    said = {name: "".join(str(part) for part in shown[f"figure-{name}"]) for name in FIGURES}
    assert "lookalike duplicates find" in said["duplicates"]
    assert "lookalike clusters make" in said["clusters"]
    assert "nothing came before" in said["novelty"]


def test_the_notebook_is_kept_without_outputs(notebook: nbformat.NotebookNode) -> None:
    """Outputs would hold pictures, which may be someone's own, and would change with every run."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)
