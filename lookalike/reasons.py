"""The one fixed list of reasons why an image has no vector, or was refused at the door.

Whoever meets a failure maps it here, once, at the edge; the rest of the house only passes reasons on. The table
`reasons` in the database holds the same list, and a test keeps the two equal.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why an image failed. `transient` reasons are tried again, the others are final until someone says `retry`."""

    meaning: str
    transient: bool

    def __new__(cls, code: str, transient: bool, meaning: str) -> "Reason":
        member = str.__new__(cls, code)
        member._value_ = code
        member.transient = transient
        member.meaning = meaning
        return member

    # fetch
    UNREACHABLE = "unreachable", True, "the host could not be reached or the connection broke"
    TIMEOUT = "timeout", True, "the host did not answer in full within the time limit"
    SERVER_ERROR = "server_error", True, "the host answered 5xx, which often passes"
    THROTTLED = "throttled", True, "the host asked for fewer requests (429 or 503)"
    INCOMPLETE = "incomplete", True, "fewer bytes arrived than the host announced"
    HTML_PAGE = "html_page", True, "an HTML page arrived in place of the image, as error pages do"
    NOT_FOUND = "not_found", False, "there is nothing at this address (404, 410, no such file or object)"
    FORBIDDEN = "forbidden", False, "the host refused access (401, 403, no permission)"
    REJECTED = "rejected", False, "the host refused the request (another 4xx, too many redirects)"
    BAD_ADDRESS = "bad_address", False, "the address is malformed or of an unknown kind"
    FORBIDDEN_ADDRESS = (
        "forbidden_address",
        False,
        "an address from outside that leads into a private network; LOOKALIKE_ALLOW_NETWORKS can allow it",
    )
    TOO_LARGE = "too_large", False, "more bytes than LOOKALIKE_MAX_BYTES"
    UNREADABLE_SERVICE = (
        "unreadable_service",
        False,
        "the info.json of the IIIF image service cannot be understood",
    )
    # decode
    EMPTY = "empty", False, "zero bytes"
    NOT_AN_IMAGE = "not_an_image", False, "the bytes are not an image"
    TRUNCATED = "truncated", False, "the image file ends too early"
    BOMB = "bomb", False, "more pixels than LOOKALIKE_MAX_PIXELS, or a small file that would take very long"
    TOO_SMALL = "too_small", False, "fewer than 16 pixels on one side"
    UNSUPPORTED = "unsupported", False, "an image format that no installed decoder reads"
    CORRUPT = "corrupt", False, "the decoder gave up on damaged image data"
    # encode
    INVALID_VECTOR = "invalid_vector", False, "the network returned a vector with NaN, infinity or no length"
    CRASHED_WORKER = "crashed_worker", False, "the image alone crashed several workers"
    WORKER_ERROR = "worker_error", True, "an unexpected error in the worker; its log has the trace"
    # refused by a source, before it became an image
    BAD_RECORD = "bad_record", False, "the record lacks a key or an address, or cannot be read"
    UNREADABLE_MANIFEST = "unreadable_manifest", False, "the IIIF manifest or collection cannot be understood"
    NO_IMAGE = "no_image", False, "the canvas or file holds no still image (sound, video, PDF, nothing)"
    NOT_OPEN = (
        "not_open",
        False,
        "access to the image is not open (closed, restricted, by appointment and the like)",
    )
    # refused by the orchestrator, before it became an announcement
    UNKNOWN_EVENT = "unknown_event", False, "the message is of no known kind, or cannot be read"
    MISSING_MANIFEST = "missing_manifest", False, "the manifest that an event named did not appear in time"
    FOREIGN_DELETION = (
        "foreign_deletion",
        False,
        "a stream of changes says that images are gone which neither it nor its host has announced",
    )
