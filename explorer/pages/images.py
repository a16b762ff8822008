"""The page of an image: the picture, what the catalogue says, its neighbours, and what the network sees in it."""

from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from explorer import reading
from explorer.archive import AnArchive, Archive
from explorer.pages import same
from explorer.pages.classes import Classes, UnavailableError, from_labels
from explorer.pages.plots import plot_classes, plot_features
from explorer.pages.rendering import compare_address, image_address, render
from explorer.pages.standing import choices, last_word
from explorer.pages.tiles import tile, tiles
from explorer.pages.undoing import QUERIES, last_decision, say_undone
from explorer.pages.wishes import MANY, Wish, read_wish
from explorer.paths import Key
from explorer.prefix import root_of
from explorer.records import ImageRecord
from explorer.thumbnails import public_address
from lookalike import books, search
from lookalike.database import Connection
from lookalike.encoders import ENCODERS, class_names
from lookalike.errors import NotEmbeddedError

router = APIRouter()


@router.get("/image")
def show_by_query(request: Request, archive: AnArchive, key: str) -> HTMLResponse:
    """As `show`, for keys that would be changed in a path."""
    return _show(request, archive, key)


@router.get("/images/{key}/{verb}")
def show_by_verb(request: Request, archive: AnArchive, key: Key, verb: str) -> Response:
    """What the API answers to programs, for people: the page of the image, or that of an image called so."""
    with archive.reading() as connection:
        names = [f"{key}/{verb}", key]
        known = {row["key"] for row in reading.rows(connection, QUERIES["pictures"], {"keys": names})}
    chosen = next((name for name in names if name in known), key)
    return RedirectResponse(image_address(chosen, root_of(request)), 303)


@router.get("/images/{key}")
def show(request: Request, archive: AnArchive, key: Key) -> HTMLResponse:
    """An image with its neighbours."""
    return _show(request, archive, key)


def _show(request: Request, archive: Archive, key: str) -> HTMLResponse:
    root, wish = root_of(request), read_wish(request.query_params)
    with archive.reading() as connection:
        encoders = books.encoder_names(connection)
        if wish.encoder not in encoders:
            wish = replace(wish, encoder=None)
        encoder = wish.encoder or next(iter(encoders), None)
        image = reading.find_image(connection, key, encoder)
        found, nothing = _neighbours(connection, key, encoder, wish)
        licences = reading.licences(connection)
        last = last_decision(connection, key)
        undone = say_undone(connection, request.query_params.get("decision"))
    shown = tile(image, root)
    asked = urlencode({"encoder": encoder}) if encoder else ""
    return render(
        request,
        "image.html",
        kept=True,
        image=shown,
        original=_original(image),
        manifest=_manifest(image),
        service=image.iiif and f"{image.iiif.rstrip('/')}/info.json",
        facts=_facts(image, root, wish.encoder),
        labels=image.labels[:3],
        palette=[(each.colour, each.share) for each in image.palette],
        said=last_word(image),
        decisions=choices(image, last),
        undone=undone,
        wish=wish,
        many_of=MANY,
        licences=licences,
        encoders=encoders,
        encoder=encoder,
        tiles=tiles(found, root, (key, wish.encoder)),
        nothing=nothing,
        numbers=f"{root}/numbers/{quote(key)}?{asked}",
        zoom=f"{root}/zoom?{urlencode({'key': key})}",
        in_sql=same.in_sql(key, wish),
        by_api=same.by_api(request, key, wish),
        snippet=same.as_snippet(same.site_of(request), key),
    )


def _neighbours(connection: Connection, key: str, encoder: str | None, wish: Wish) -> tuple[list[Any], str]:
    """The neighbours, and in words why there are none."""
    if encoder is None:
        return [], "No encoder yet: nothing was embedded."
    try:
        found = reading.similar(connection, key, encoder, wish.k, wish.max_distance, wish.filters)
    except NotEmbeddedError:
        return [], f"This image has no vector of {encoder} yet; the status page shows how far the work is."
    return list(found.neighbours), "No image is like it within these filters."


def _original(image: ImageRecord) -> str | None:
    """The whole picture, in words that image services of all versions but the first understand."""
    return f"{image.iiif.rstrip('/')}/full/max/0/default.jpg" if image.iiif else image.url


def _manifest(image: ImageRecord) -> str | None:
    """The IIIF manifest that announced the image, where it was one."""
    is_manifest = image.iiif is not None and "manifest" in (image.source or "")
    return public_address(image.source) if is_manifest and image.source else None


def _facts(image: ImageRecord, root: str, encoder: str | None) -> list[tuple[str, str, str | None]]:
    """What the catalogue says, as (word, value, link)."""
    of_work = f"{root}/search?{urlencode({'work': image.work})}" if image.work else None
    facts: list[tuple[str, str | None, str | None]] = [
        ("Work", image.work, of_work),
        ("Licence", image.licence, None),
        ("Credit", image.credit, None),
        ("Access", image.access, None),
        ("Digitised", f"{image.digitised:%-d %B %Y}", None),
        ("Source", image.source, image.source and public_address(image.source)),
    ]
    facts += [
        ("Cluster", one.name or one.label or str(one.cluster), f"{root}/clusters/{one.cluster}")
        for one in image.clusters
    ]
    if image.copies:
        facts.append(
            (
                "Near-duplicates",
                f"{len(image.copies)}, nearest at {image.copies[0].distance:.3f}",
                compare_address(image.key, image.copies[0].key, root, encoder),
            )
        )
    return [(word, value, link) for word, value, link in facts if value]


@router.get("/numbers/{key:path}")
def show_numbers(request: Request, archive: AnArchive, key: str, encoder: str | None = None) -> HTMLResponse:
    """The classes of an image above its features, as bars."""
    with archive.reading() as connection:
        chosen = encoder or archive.encoder(connection)
        image = reading.find_image(connection, key, chosen)
        known = search.find_image(connection, key)
        features = _features(connection, key, chosen)
    classes, apology = _classes(request, image, known, chosen)
    return render(
        request,
        "numbers.html",
        image=tile(image, root_of(request)),
        encoder=chosen,
        classes=None if classes is None else plot_classes(classes, class_names(chosen)),
        apology=apology,
        features=None if features is None else plot_features(features),
    )


def _features(connection: Connection, key: str, encoder: str) -> Any:
    try:
        return reading.vector_of(connection, key, encoder)
    except NotEmbeddedError:
        return None


def _classes(
    request: Request, image: ImageRecord, known: search.KnownImage, encoder: str
) -> tuple[Any, str | None]:
    """The probabilities, and what must be said of them."""
    if encoder not in ENCODERS:
        return None, f"{encoder} is no network that this program knows."
    classes: Classes = request.app.state.classes
    try:
        return classes.tell(known, image, encoder), None
    except UnavailableError as error:
        stored = from_labels(image, encoder)
        if stored is None:
            return None, str(error)
        return stored, f"{error} Shown are the five most probable classes, which the archive has stored."
