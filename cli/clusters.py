"""`lookalike clusters`: images, or works, that look alike, in clusters that people can name."""

import time
from enum import StrEnum
from typing import Annotated

import typer

from cli import output
from cli.options import Encoder, Json
from cli.session import Session, log_to_terminal, open_session
from lookalike import analyses, cluster_samples, clusters, kinds, search
from lookalike.analyses import Analysis
from lookalike.clusters import SAMPLE, Plan, Wish

clusters_app = typer.Typer(
    help="Clusters of images, or of works, that look alike: made, labelled and named.", no_args_is_help=True
)


class Of(StrEnum):
    """What is clustered."""

    IMAGES = "images"
    WORKS = "works"


class Method(StrEnum):
    """How clusters are found."""

    KMEANS = "kmeans"
    HDBSCAN = "hdbscan"


OfOption = Annotated[Of, typer.Option("--of", help="Cluster images, or works by the mean of their images.")]
MethodOption = Annotated[
    Method,
    typer.Option(
        help="kmeans: every image is in a cluster, also those that arrive later. hdbscan: a look at a sample of at most"
        " 10,000, which takes time and memory by its square; finds dense clusters of any shape and their number; the"
        " rest of the archive, later images and noise are in none, and real vectors may be noise for the most part."
    ),
]


@clusters_app.command("make")
def clusters_make(
    of: OfOption = Of.IMAGES,
    number: Annotated[
        int | None,
        typer.Option(
            "--clusters", min=1,
            help="How many; else the number, up to 512, with the best silhouette of held-out vectors.",
        ),
    ] = None,
    method: MethodOption = Method.KMEANS,
    sample: Annotated[
        int | None,
        typer.Option(min=2, max=10_000_000, help="Vectors to train on; 100000, or 5000 for hdbscan."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another one draws another sample.")] = 0,
    enqueue: Annotated[
        bool, typer.Option(help="Only train and enqueue: `lookalike orchestrate` and workers elsewhere do the rest.")
    ] = False,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Makes clusters and assigns all images, and from then on those that arrive. Clusters of before are shown until
    all are assigned; one that keeps more than half of its members keeps its number and name. When stopped, the same
    command goes on."""
    log_to_terminal(30)
    session = open_session()
    wish = Wish(of.value, method.value, number, sample or SAMPLE[method.value], seed)
    with session.connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        unfinished = clusters.find_unfinished(connection, chosen, wish)
    planned, analysis = _begin(session, chosen, wish) if unfinished is None else (None, unfinished)
    if not enqueue:
        _finish(session, analysis, as_json)
    _report(session, analysis, wish, planned, not enqueue, as_json)


def _begin(session: Session, encoder: str, wish: Wish) -> tuple[Plan, Analysis]:
    with session.connect() as connection:
        dimension = cluster_samples.find_table(connection, encoder).dimension
        pairs = 17 * wish.sample**2 if wish.method == "hdbscan" else 0
        needed = cluster_samples.memory(wish.sample, dimension) + pairs >> 20
        output.errors.print(
            f"training on up to {wish.sample:,} vectors: at most about {needed:,} MB of memory",
            highlight=False,
        )
        planned = clusters.plan(connection, encoder, wish)
        return planned, clusters.begin(connection, planned)


def _finish(session: Session, analysis: Analysis, quiet: bool) -> None:
    if analysis.standing:
        from cli.analysis import run_analysis

        run_analysis(session, analysis, quiet=quiet)
    else:  # all of it is there already
        with session.connect() as connection:
            kinds.settle(connection)
            while not analyses.is_settled(connection, analysis.id):  # an orchestrator is at it
                time.sleep(0.2)


def _report(
    session: Session, analysis: Analysis, wish: Wish, planned: Plan | None, settled: bool, as_json: bool
) -> None:
    with session.connect() as connection:
        found = clusters.list_clusters(connection, analysis.encoder, wish.of, wish.method)
    if as_json:
        output.print_json(
            {
                "analysis": analysis.id,
                "encoder": analysis.encoder,
                "of": wish.of,
                "method": wish.method,
                "settled": settled,
                "sampled": planned and planned.sampled,
                "silhouette": planned and planned.silhouette,
                "tried": planned and planned.tried,
                "clusters": found if settled else [],
            }
        )
        return
    if planned and planned.silhouette is not None:
        made = f"{len(planned.centres)} clusters, silhouette {planned.silhouette:.2f}"
        output.errors.print(made, highlight=False)
    if settled:
        _show_clusters(analysis.encoder, found)
    else:
        print(f"analysis {analysis.id} is enqueued: `lookalike clusters list` shows it when all is assigned")


@clusters_app.command("list")
def clusters_list(
    of: OfOption = Of.IMAGES,
    method: MethodOption = Method.KMEANS,
    limit: Annotated[int, typer.Option("-n", min=1, help="How many clusters, the largest first.")] = 100,
    encoder: Encoder = None,
    as_json: Json = False,
) -> None:
    """Lists clusters with what they may be called."""
    with open_session().connect() as connection:
        chosen = encoder or search.active_encoder(connection)
        found = clusters.list_clusters(connection, chosen, of.value, method.value, limit)
    if as_json:
        output.print_json({"encoder": chosen, "clusters": found})
    else:
        _show_clusters(chosen, found)


def _show_clusters(encoder: str, found: list[clusters.Cluster]) -> None:
    output.print_table(
        encoder, ("cluster", "name", "label", "size", "spread", "exemplars"),
        [(str(c.cluster), c.name, c.label, c.size, c.spread, " ".join(c.exemplars[:3])) for c in found],
    )  # fmt: skip


@clusters_app.command("show")
def clusters_show(
    cluster: int,
    limit: Annotated[int, typer.Option("-n", min=1, help="How many members, the nearest to the centre first.")] = 20,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Shows a cluster, by its number, with its members."""
    with open_session().connect() as connection:
        found = clusters.find_cluster(connection, cluster)
        members = clusters.list_members(connection, cluster, limit)
    if as_json:
        output.print_json({"cluster": found, "members": members})
        return
    output.print_table(
        f"{cluster}: {found.name or found.label or ''} ({found.size:,} {found.of})",
        ("image", "work", "title", "distance"),
        [(m.image, m.work, m.title, m.distance) for m in members],
    )


@clusters_app.command("name")
def clusters_name(
    cluster: int, name: Annotated[str, typer.Argument(help='Such as "Portraits"; "" takes the name away.')]
) -> None:
    """Gives a cluster a name; it stays when clusters are made anew."""
    with open_session().connect() as connection:
        clusters.name(connection, cluster, name.strip() or None)
    print(f"cluster {cluster} is called {name.strip()}" if name.strip() else f"cluster {cluster} has no name")
