"""The images in a folder of this machine, in a stable order. It opens no file: sizes and times are enough."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from lookalike.errors import SourceError
from lookalike.images import Announcement, Checkpoint, Position, Refused
from lookalike.reasons import Reason
from orchestrator.sources.records import (
    IMAGE_SUFFIXES,
    absolute_path,
    announce,
    file_url,
    has_image_suffix,
    key_of_path,
    printable,
)

CHECKPOINT_FILES = 256
"""A stopped read is gone on with behind the last so many files that were committed."""


def read_folder(
    folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES, position: Position | None = None
) -> Iterator[Announcement | Checkpoint]:
    """Yields all files below the folder with one of the suffixes, sorted by path; behind a position, if one is given.

    Hidden files and folders are passed over. Keys are paths from the folder with its name in front
    (`photos/2024/a.jpg` for the folder `/data/photos`), content is size and modification time in nanoseconds.
    Linked files are read as files. Linked folders are entered once, and not at all when they lie in the
    folder or hold it: those images have their own place, and loops end so. A folder below that may not be
    read is one Refused. Memory grows with the largest single folder, not with the tree. Raises SourceError
    when the folder itself cannot be read.
    """
    root = absolute_path(folder)
    try:
        names = _sorted_names(str(root), suffixes)
    except OSError as error:
        raise SourceError(
            f"{folder} cannot be read: {error.strerror}; check the path and its permissions"
        ) from error
    behind = str(position["behind"]) if position and position.get("folder") == str(root) else ""
    home, entered = root.resolve(), set[Path]()
    pending = [f"{root}/{name}" for name in reversed(names)]
    count = 0
    while pending:
        path = pending.pop()
        if path <= behind and not (path.endswith("/") and behind.startswith(path)):
            continue
        if not path.endswith("/"):
            yield read_file(Path(path), root)
            count += 1
            if count % CHECKPOINT_FILES == 0:
                yield Checkpoint({"folder": str(root), "behind": path})
        elif _may_enter(Path(path), home, entered):
            try:
                pending.extend(path + name for name in reversed(_sorted_names(path, suffixes)))
            except OSError as error:
                yield Refused(
                    printable(path), Reason.FORBIDDEN, f"the folder cannot be read: {error.strerror}"
                )


def read_file(path: Path, folder: Path) -> Announcement:
    """Announces one file, its key being the path from the folder. Both paths are absolute."""
    where = printable(str(path))
    try:
        status = path.stat()
    except OSError as error:
        denied = isinstance(error, PermissionError)
        return Refused(where, Reason.FORBIDDEN if denied else Reason.NOT_FOUND, error.strerror or "")
    if not stat.S_ISREG(status.st_mode):
        return Refused(where, Reason.NO_IMAGE, "not a regular file")
    content = f"{status.st_size}-{status.st_mtime_ns}"
    return announce(where, file_url(path), key=key_of_path(path, folder), content=content, outside=False)


def _sorted_names(folder: str, suffixes: frozenset[str]) -> list[str]:
    """Returns names of images, and of folders with a slash at the end: so whole paths come out sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name + "/" if folderish else entry.name
            for entry in entries
            if not entry.name.startswith(".")
            if (folderish := _is_folder(entry)) or has_image_suffix(entry.name, suffixes)
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _may_enter(folder: Path, home: Path, entered: set[Path]) -> bool:
    if not folder.is_symlink():
        return True
    target = folder.resolve()
    if target in entered or target.is_relative_to(home) or home.is_relative_to(target):
        return False
    entered.add(target)
    return True
