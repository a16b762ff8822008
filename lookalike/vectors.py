"""Stores vectors: one binary COPY into a staging table, one upsert, inside the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from lookalike.encoders import class_names
from lookalike.queries import load_queries

QUERIES = load_queries("ledger")
# Classes of an image that are kept as labels.
LABELS = 5
# Colours of an image that are kept as its palette, at most.
PALETTE = 5
# Side of the miniature of an image, in pixels.
MINIATURE = 12


@dataclass(frozen=True, slots=True)
class Labels:
    """The most probable classes of n images: classes int64 (n, 5), probabilities float32 (n, 5), falling."""

    classes: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @classmethod
    def best(cls, probabilities: NDArray[np.float32]) -> "Labels":
        """The best of all classes, from probabilities float32 (n, classes)."""
        classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :LABELS]
        return cls(classes, np.take_along_axis(probabilities, classes, axis=1))

    @classmethod
    def join(cls, parts: Sequence["Labels"]) -> "Labels | None":
        """The labels of several images as one; None of none."""
        if not parts:
            return None
        return cls(
            np.concatenate([p.classes for p in parts]), np.concatenate([p.probabilities for p in parts])
        )

    def row(self, number: int) -> "Labels":
        """The labels of one image."""
        return Labels(self.classes[number : number + 1], self.probabilities[number : number + 1])


@dataclass(frozen=True, slots=True)
class Appearance:
    """The shape and the colours of one image.

    aspect_ratio: width / height, upright. average_colour and palette: colours of sRGB as '#rrggbb', up to 5 in the
    palette, the one of the largest share first. palette_shares: the share of the area that each stands for, sum 1.
    miniature: 12 x 12 greys of one byte, row by row.
    """

    aspect_ratio: float
    average_colour: str
    palette: tuple[str, ...]
    palette_shares: tuple[float, ...]
    miniature: bytes


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of n images by one encoder.

    image_ids: int64 (n,). revisions: int32 (n,), the revision of each image that was read. checksums: uint8 (n, 32),
    SHA-256 of the bytes fetched. codes: uint8 (n, ceil(d / 8)), most significant bit first. vectors: float32 or
    float16 (n, d), finite and of unit length. labels: of the same n images, None without a classifier. appearances: of
    the same n images, None where unknown, or for all.
    """

    image_ids: NDArray[np.int64]
    revisions: NDArray[np.int32]
    checksums: NDArray[np.uint8]
    codes: NDArray[np.uint8]
    vectors: NDArray[np.floating]
    labels: Labels | None = None
    appearances: Sequence[Appearance | None] | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, rows: NDArray[np.int64], image_ids: NDArray[np.int64]) -> "Vectors":
        """These rows, any of them more than once, as the vectors of other images of the first revision."""
        labels, looks = self.labels, self.appearances
        return Vectors(
            image_ids,
            np.ones(len(rows), np.int32),
            self.checksums[rows],
            self.codes[rows],
            self.vectors[rows],
            None if labels is None else Labels(labels.classes[rows], labels.probabilities[rows]),
            None if looks is None else [looks[row] for row in rows],
        )


def store_vectors(
    connection: psycopg.Connection[tuple[object, ...]], encoder: str, table: sql.Identifier, vectors: Vectors
) -> None:
    """Writes vectors, labels and appearances; later content replaces earlier, never the other way round."""
    if not len(vectors):
        return
    dimension = vectors.vectors.shape[1]
    names = {
        "vectors": table,
        "staging": sql.Identifier(f"staging_{encoder}"),
        "dimension": sql.Literal(dimension),
    }
    statements = {
        name: sql.SQL(QUERIES[name]).format(**names)
        for name in ("make_staging", "copy_staging", "merge_vectors")
    }
    connection.execute(statements["make_staging"])
    with connection.cursor().copy(statements["copy_staging"]) as copy:
        copy.write(binary_rows(vectors))
    stored = [image for (image,) in connection.execute(statements["merge_vectors"])]
    if vectors.labels is not None:
        _store_labels(
            connection,
            encoder,
            vectors.image_ids,
            vectors.labels,
            np.isin(vectors.image_ids, np.array(stored, np.int64)),
        )
    if vectors.appearances is not None:
        _store_appearances(connection, vectors.image_ids, vectors.revisions, vectors.appearances)


def _store_labels(
    connection: psycopg.Connection[tuple[object, ...]],
    encoder: str,
    image_ids: NDArray[np.int64],
    labels: Labels,
    chosen: NDArray[np.bool_],
) -> None:
    """Writes the labels of the chosen images."""
    names = np.array(class_names(encoder), object)
    count = int(chosen.sum())
    connection.execute(
        QUERIES["merge_labels"],
        {
            "encoder": encoder,
            "ids": np.repeat(image_ids[chosen], LABELS).tolist(),
            "ranks": list(range(1, LABELS + 1)) * count,
            "labels": names[labels.classes[chosen]].ravel().tolist(),
            "probabilities": labels.probabilities[chosen].ravel().tolist(),
        },
    )


def _store_appearances(
    connection: psycopg.Connection[tuple[object, ...]],
    image_ids: NDArray[np.int64],
    revisions: NDArray[np.int32],
    appearances: Sequence[Appearance | None],
) -> None:
    """Writes the appearances that are known, of images that have none of this revision yet."""
    rows = zip(image_ids.tolist(), revisions.tolist(), appearances, strict=True)
    known = [(image, revision, one) for image, revision, one in rows if one is not None]
    if not known:
        return
    connection.execute(
        QUERIES["merge_appearances"],
        {
            "ids": [image for image, _, _ in known],
            "revisions": [revision for _, revision, _ in known],
            "ratios": [one.aspect_ratio for _, _, one in known],
            "averages": [one.average_colour for _, _, one in known],
            # An array of arrays of different lengths is no array of Postgres: each palette is one text.
            "palettes": [",".join(one.palette) for _, _, one in known],
            "shares": [",".join(f"{share:.6f}" for share in one.palette_shares) for _, _, one in known],
            "miniatures": [one.miniature for _, _, one in known],
        },
    )


def binary_rows(vectors: Vectors) -> bytes:
    """Renders the rows as Postgres' binary COPY format.

    All fields have a fixed length, so that numpy writes the rows at once: some 30 times faster than row by row. The
    formats of bit and halfvec are those of their `recv` functions (PostgreSQL varbit.c, pgvector halfvec.c).
    """
    count, dimension = vectors.vectors.shape
    code_bytes = vectors.codes.shape[1]
    row = np.dtype(
        [
            ("fields", ">i2"),
            ("id_size", ">i4"), ("image_id", ">i8"),
            ("revision_size", ">i4"), ("revision", ">i4"),
            ("checksum_size", ">i4"), ("checksum", "u1", (32,)),
            ("code_size", ">i4"), ("code_bits", ">i4"), ("code", "u1", (code_bytes,)),
            ("v_size", ">i4"), ("v_dimension", ">i2"), ("v_unused", ">i2"), ("v", ">f2", (dimension,)),
        ]
    )  # fmt: skip
    rows = np.zeros(count, row)
    rows["fields"] = 5
    rows["id_size"], rows["image_id"] = 8, vectors.image_ids
    rows["revision_size"], rows["revision"] = 4, vectors.revisions
    rows["checksum_size"], rows["checksum"] = 32, vectors.checksums
    rows["code_size"], rows["code_bits"], rows["code"] = 4 + code_bytes, dimension, vectors.codes
    rows["v_size"], rows["v_dimension"], rows["v"] = 4 + 2 * dimension, dimension, vectors.vectors
    signature, header, trailer = b"PGCOPY\n\xff\r\n\0", bytes(8), b"\xff\xff"
    return signature + header + rows.tobytes() + trailer
