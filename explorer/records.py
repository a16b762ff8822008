"""What the explorer answers, as the API's JSON and as what the pages show. Plain values: nothing here asks anything."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FieldSerializationInfo, field_serializer

from explorer.thumbnails import addresses, public_address, under

Item = TypeVar("Item")


class Record(BaseModel):
    """What all records have in common."""

    model_config = ConfigDict(frozen=True)


class Thumbnail(Record):
    """Where a browser sees the picture: null where it cannot; with a slash first, it is one of the explorer's."""

    small: str | None
    large: str | None

    @field_serializer("small", "large")
    def _below_the_prefix(self, address: str | None, info: FieldSerializationInfo[Any]) -> str | None:
        return under((info.context or {}).get("root", ""), address)


class Picture(Record):
    """An image as it is shown beside others, with what has to be said of it wherever it is shown."""

    key: str
    title: str | None = None
    work: str | None = None
    licence: str | None = None
    credit: str | None = Field(None, description="whom to name where the picture is shown")
    url: str | None = Field(None, description="the file; null unless it is on the web")
    iiif: str | None = Field(None, description="the base address of its IIIF image service")
    thumbnail: Thumbnail
    aspect_ratio: float | None = Field(None, description="width / height")
    average_colour: str | None = Field(None, description="#rrggbb")


class Neighbour(Picture):
    """An image that was found; rank 1 is the nearest, distance 0 the same picture and 1 nothing in common."""

    rank: int
    distance: float


class Neighbours(Record):
    """What a search found. `query` is the key of the image that was searched with, or what was sent."""

    query: str
    encoder: str
    neighbours: list[Neighbour]


class Swatch(Record):
    """A colour that stands for a share of the picture, 0..1."""

    colour: str
    share: float


class Label(Record):
    """What a network says that the picture shows, with its probability; rank 1 is the most probable."""

    rank: int
    label: str
    probability: float


class Cluster(Record):
    """A cluster; `label` is what it may be called by what marks it, `name` what people call it."""

    cluster: int
    of: Literal["images", "works"]
    method: Literal["kmeans", "hdbscan"]
    name: str | None
    label: str | None
    size: int
    spread: float | None


class ShownCluster(Cluster):
    """A cluster with the pictures that stand for it."""

    classes: list[str]
    words: list[str]
    exemplars: list[Picture]


class ImageCluster(Cluster):
    """A cluster that an image is in, and its distance to the centre."""

    distance: float


class ClusterMember(Picture):
    """A member of a cluster, by its distance to the centre; of a cluster of works, the first image of the work."""

    distance: float


class Copy(Picture):
    """A near-duplicate of an image. `turn` says how the earlier one has to be turned to look like the later one."""

    distance: float
    likeness: float | None
    turn: str
    same: bool | None = Field(description="what people say: the same picture or not; null: nobody said")


class Standing(Record):
    """What a set of unwanted images says of one."""

    set: str
    state: Literal["candidate", "accepted", "fine"]
    distance: float
    nearest_example: str | None
    example: bool
    decided_by: str | None
    decided_at: datetime | None


class ImageRecord(Picture):
    """All that the archive says of one image."""

    access: str | None
    source: str | None = Field(description="what announced it; null unless it is on the web")
    digitised: date
    registered_at: datetime
    changed_at: datetime
    palette: list[Swatch]
    encoders: list[str] = Field(description="whose vectors it has: it can be searched from with these")
    labels: list[Label]
    clusters: list[ImageCluster]
    copies: list[Copy] = Field(description="its near-duplicates, nearest first, at most ten")
    unwanted: bool = Field(description="searches leave it out unless they ask for unwanted images")
    standing: list[Standing] = Field(description="what sets of unwanted images say of it")


class Pair(Record):
    """Two images that are near-duplicates, nobody's decision on it (`same` null) or somebody's."""

    first: Picture
    second: Picture
    distance: float
    likeness: float | None
    turn: str
    same: bool | None
    decided_by: str | None
    decided_at: datetime | None


class GroupMember(Picture):
    """An image of a group of near-duplicates; one stands for the group."""

    representative: bool
    distance: float | None


class Group(Record):
    """Images that near-duplicates link; of a large group the first members."""

    group: int
    size: int
    images: list[GroupMember]


class UnwantedImage(Picture):
    """An image of a set of unwanted ones, by its distance to the nearest example."""

    set: str
    state: Literal["candidate", "accepted", "fine"]
    distance: float
    nearest_example: str | None
    example: bool
    decided_by: str | None
    decided_at: datetime | None


class UnwantedSet(Record):
    """A kind of unwanted images, and how many it has in each state."""

    name: str
    encoder: str
    threshold: float
    examples: int
    candidates: int
    accepted: int
    fine: int
    learned_at: datetime


class Decision(Record):
    """What somebody decided. `id` takes it back."""

    id: int
    kind: Literal["pair", "unwanted", "name", "retry"]
    subject: list[str]
    verdict: str
    decided_by: str
    decided_at: datetime
    undone_by: str | None = None
    undone_at: datetime | None = None


class Page(Record, Generic[Item]):
    """Some of a list. `next` is the `cursor` of what follows; null at the end."""

    items: list[Item]
    next: str | None = None


def as_picture(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the database with what `Picture` and its like want; its address only where it may be shown."""
    shown = addresses(row["url"], row["protocol"], row["key"], row.get("kept"))
    known = {name: value for name, value in row.items() if name not in ("url", "protocol", "kept")}
    if known.get("source"):
        # A folder or a bucket is nobody's business.
        known["source"] = public_address(known["source"])
    iiif = row["protocol"] == "iiif"
    public = public_address(row["url"])
    return {
        **known,
        "url": None if iiif else public,
        "iiif": public if iiif else None,
        "thumbnail": {"small": shown.small, "large": shown.large},
    }
