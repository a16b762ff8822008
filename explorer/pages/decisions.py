"""What people decide on the pages: plain forms, answered by the way back to where they were, and what to undo.

Who decides, and whether they may, is for explorer.access to say; what a decision does is in explorer.deciding.
"""

from typing import Annotated, cast, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from explorer import deciding
from explorer.access import Decider, Who
from explorer.archive import AnArchive
from explorer.deciding import Verdict
from explorer.pages.learning import Learning
from explorer.pages.rendering import image_address
from explorer.pages.undoing import MOST, read_numbers, write_numbers
from explorer.prefix import root_of
from explorer.records import Decision
from lookalike.database import Connection
from lookalike.errors import ConfigurationError, OutdatedDecisionError
from lookalike.reasons import Reason

router = APIRouter()

Word = Annotated[str, Form(max_length=4000)]


@router.post("/decisions/image")
def decide_image(
    request: Request, archive: AnArchive, who: Decider, key: Word, state: Word, decision: Word = ""
) -> Response:
    """An image is unwanted, or fine; or the decision with this number is taken back."""
    back = image_address(key, root_of(request))
    with archive.deciding() as connection:
        if state == "undo":
            return _to(_undone(connection, decision, who, back))
        deciding.decide_unwanted(connection, key, _as_verdict(state), who.name)
    return _to(back)


@router.post("/decisions/pair")
def decide_pair(
    request: Request,
    archive: AnArchive,
    who: Decider,
    first: Word,
    second: Word,
    verdict: Word,
    back: Word = "",
) -> Response:
    """Two images are the same picture, or not."""
    if verdict not in ("same", "different"):
        raise ConfigurationError(f"no verdict {verdict!r}; there are: same, different")
    with archive.deciding() as connection:
        decision = deciding.mark_pair(connection, first, second, verdict == "same", who.name)
    return _back(request, back, "/duplicates", [decision])


@router.post("/decisions/images")
def decide_images(
    request: Request,
    archive: AnArchive,
    who: Decider,
    set: Word,
    state: Word = "",
    only: Word = "",
    key: Annotated[list[str], Form()] = [],  # noqa: B006 - as FastAPI wants it
    back: Word = "",
) -> Response:
    """Images of a set are unwanted or fine: those that were chosen together, or `only` one ("fine KEY")."""
    verdict, keys = (only.partition(" ")[0], [only.partition(" ")[2]]) if only else (state, key)
    decisions: list[Decision] = []
    with archive.deciding() as connection, connection.transaction():
        deciding.hold_images(connection, keys[:MOST])
        for one in keys[:MOST]:
            decisions.append(
                deciding.decide_unwanted(connection, one, _as_verdict(verdict), who.name, set or None)
            )
    return _back(request, back, "/unwanted", decisions)


@router.post("/decisions/cluster")
def name_cluster(
    request: Request, archive: AnArchive, who: Decider, cluster: Annotated[int, Form()], name: Word = ""
) -> Response:
    """A cluster is called so; an empty name takes it away."""
    with archive.deciding() as connection:
        deciding.name_cluster(connection, cluster, name.strip() or None, who.name)
    return _to(f"{root_of(request)}/clusters/{cluster}")


@router.post("/decisions/retry")
def retry(
    request: Request, archive: AnArchive, who: Decider, encoder: Word, reason: Word = "", key: Word = ""
) -> Response:
    """Failed images are tried again: all with a reason, or one."""
    if not reason and not key:
        raise ConfigurationError("name a reason or an image")
    known = [each for each in Reason if each == reason]
    if reason and not known:
        raise ConfigurationError(f"no reason {reason!r}")
    with archive.deciding() as connection:
        chunk_size = request.app.state.settings.chunk_size
        deciding.retry(connection, encoder, chunk_size, who.name, known or None, [key] if key else None)
    # Where a browser has shown its token, it shows it again.
    return _to(f"{root_of(request)}/status{'/details' if who.proven else ''}")


@router.post("/decisions/undo")
def undo(request: Request, archive: AnArchive, who: Decider, decision: Word, back: Word = "") -> Response:
    """What was just decided is taken back, the latest first."""
    with archive.deciding() as connection:
        return _to(_undone(connection, decision, who, _way_back(request, back, "/")))


def _undone(connection: Connection, words: str, who: Who, back: str) -> str:
    """Takes decisions back by their numbers. Returns the way back, with the numbers where somebody had done so before:
    the page there says who."""
    numbers = read_numbers(words)
    if not numbers:
        raise ConfigurationError("name the number of the decision that is to be taken back")
    with connection.transaction():
        deciding.hold_decisions(connection, numbers)
        done = [deciding.undo(connection, number, who.name)[1] for number in reversed(numbers)]
    return back if any(done) else _with_numbers(back, ".".join(map(str, numbers)))


@router.post("/unwanted/learn")
def learn(
    request: Request, who: Decider, name: Word, examples: Annotated[str, Form(max_length=200_000)]
) -> Response:
    """A set of unwanted images is learned from examples; the page of the set tells how far that is."""
    keys = list(dict.fromkeys(line.strip() for line in examples.splitlines() if line.strip()))
    learning: Learning = request.app.state.learning
    if not name.strip() or not keys:
        raise ConfigurationError("name the set, and the keys of some unwanted images")
    if not learning.begin(name.strip(), keys, who.name):
        raise OutdatedDecisionError("another set is being learned: wait for that")
    return _to(f"{root_of(request)}/unwanted?{urlencode({'set': name.strip()})}")


def _as_verdict(word: str) -> Verdict:
    for verdict in get_args(Verdict):
        if word == verdict:
            return cast(Verdict, verdict)
    raise ConfigurationError(f"no verdict {word!r}; there are: {', '.join(get_args(Verdict))}")


def _back(request: Request, back: str, otherwise: str, decisions: list[Decision]) -> Response:
    """Where the form was, with what was decided in the address."""
    path = _way_back(request, back, otherwise)
    return _to(_with_numbers(path, write_numbers(decisions)) if decisions else path)


def _way_back(request: Request, back: str, otherwise: str) -> str:
    root = root_of(request)
    return back if _is_ours(back, root) else f"{root}{otherwise}"


def _with_numbers(path: str, numbers: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}{urlencode({'decision': numbers})}"


def _is_ours(path: str, root: str) -> bool:
    """Whether an address that came with a form leads to the explorer: a path, and no other host's."""
    return path.startswith(f"{root}/") and not path.startswith(("//", "/\\")) and path.isprintable()


def _to(path: str) -> Response:
    return RedirectResponse(path, 303)
