"""Decisions: whether a pair is the same picture, whether an image is unwanted, names, what is tried again; and back."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from explorer import deciding, reviewing
from explorer.access import Decider
from explorer.answers import answer, written
from explorer.api.parameters import Cursor, Limit, Text
from explorer.archive import AnArchive
from explorer.deciding import Verdict
from explorer.records import Decision, Page
from lookalike.errors import ConfigurationError
from lookalike.reasons import Reason

router = APIRouter(tags=["decisions"])

Name = Annotated[Text, Field(min_length=1, max_length=200)]
Id = Annotated[int, Path(ge=1, le=2**63 - 1)]


class Said(BaseModel):
    """What somebody says. `by` is who; with tokens it is whose token it is."""

    by: Annotated[Text, Field(max_length=100)] | None = None


class PairSaid(Said):
    """Whether two images, by their keys, are the same picture."""

    first: Name
    second: Name
    same: bool


class UnwantedSaid(Said):
    """Whether an image is unwanted: as a member of a set, or on sight."""

    image: Name
    verdict: Verdict
    set: Name | None = None


class NameSaid(Said):
    """What a cluster is called; null takes the name away."""

    name: Name | None


class RetrySaid(Said):
    """Which failed images are to be tried again: those of these reasons and keys; `all` is all of them."""

    encoder: Name | None = None
    reasons: list[Reason] | None = Field(None, min_length=1)
    keys: list[Name] | None = Field(None, min_length=1, max_length=10_000)
    all: bool = False


class Retried(BaseModel):
    """How many images are pending again."""

    images: int
    decision: Decision


@router.post("/duplicates", response_model=Decision, status_code=201)
def decide_pair(request: Request, archive: AnArchive, who: Decider, said: PairSaid) -> Response:
    """Says whether two images are the same picture; different ones are never paired again."""
    with archive.deciding() as connection:
        decision = deciding.mark_pair(connection, said.first, said.second, said.same, who.called(said.by))
    return written(request, decision, 201)


@router.post("/unwanted", response_model=Decision, status_code=201)
def decide_unwanted(request: Request, archive: AnArchive, who: Decider, said: UnwantedSaid) -> Response:
    """Says whether an image is unwanted: such images leave all searches that do not ask for them."""
    with archive.deciding() as connection:
        by = who.called(said.by)
        return written(
            request, deciding.decide_unwanted(connection, said.image, said.verdict, by, said.set), 201
        )


@router.post("/clusters/{cluster}/name", response_model=Decision, status_code=201)
def name_cluster(request: Request, archive: AnArchive, who: Decider, cluster: Id, said: NameSaid) -> Response:
    """Gives a cluster a name, which it keeps when clusters are made anew."""
    with archive.deciding() as connection:
        return written(
            request, deciding.name_cluster(connection, cluster, said.name, who.called(said.by)), 201
        )


@router.post("/failures/retry", response_model=Retried, status_code=201)
def retry_failures(request: Request, archive: AnArchive, who: Decider, said: RetrySaid) -> Response:
    """Makes failed images pending again."""
    if not (said.all or said.reasons or said.keys):
        raise ConfigurationError("name reasons, keys, or all")
    with archive.deciding() as connection:
        decision, count = deciding.retry(
            connection,
            said.encoder or archive.encoder(connection),
            request.app.state.settings.chunk_size,
            who.called(said.by),
            said.reasons,
            said.keys,
        )
    return written(request, Retried(images=count, decision=decision), 201)


@router.get("/decisions", response_model=Page[Decision])
def list_decisions(
    request: Request, archive: AnArchive, cursor: Cursor = None, limit: Limit = 40
) -> Response:
    """What was decided here, the latest first, also what was taken back."""
    with archive.reading() as connection:
        return answer(request, reviewing.list_decisions(connection, cursor, limit), keep=False)


@router.delete("/decisions/{decision}", response_model=Decision)
def undo(request: Request, archive: AnArchive, who: Decider, decision: Id) -> Response:
    """Takes a decision back: what held before holds again, unless something else was decided since. Once more changes
    nothing, and answers who took it back and when."""
    with archive.deciding() as connection:
        undone, _ = deciding.undo(connection, decision, who.called(None))
    return written(request, undone)
