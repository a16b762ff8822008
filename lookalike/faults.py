"""The one fixed list of faults that an audit looks for: what must never be in an archive, and what mends it."""

from enum import StrEnum


class Fault(StrEnum):
    """Something that an audit finds; `meaning` and `repair` are for people. Without a `repair`, people must act."""

    meaning: str
    repair: str

    def __new__(cls, code: str, meaning: str, repair: str) -> "Fault":
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        member.repair = repair
        return member

    # an image that nobody looks after
    LOST = "lost", "images with neither vector, failure nor open chunk", "queued"
    OUTDATED = "outdated", "images with a vector of earlier content that nothing will replace", "queued"
    # an image with more than one of them
    TWICE = "twice", "images with a vector and a failure of the same content", "failure deleted"
    # made from content that the ledger does not name
    FUTURE_VECTOR = "future_vector", "vectors of content that the ledger does not know", "deleted, queued"
    FUTURE_FAILURE = "future_failure", "failures of content that the ledger does not know", "deleted, queued"
    # orphans
    STRAY_VECTOR = "stray_vector", "vectors of images that are not registered", "deleted"
    STRAY_FAILURE = "stray_failure", "failures of images that are not registered", "deleted"
    STRAY_LABEL = "stray_label", "labels of images that are not registered", "deleted"
    STRAY_MEMBER = "stray_member", "images in clusters that are not registered", "deleted"
    # a vector that is none
    WRONG_DIMENSION = "wrong_dimension", "vectors of another dimension than the encoder's", "deleted, queued"
    NOT_FINITE = "not_finite", "vectors with NaN or infinity", "deleted, queued"
    NOT_UNIT = "not_unit", "vectors that are not of unit length", "deleted, queued"
    WRONG_CODE = "wrong_code", "vectors whose code is not theirs", "deleted, queued"
    NO_CHECKSUM = "no_checksum", "vectors without the checksum of their content", "deleted, queued"
    # around the images
    WRONG_TABLE = "wrong_table", "tables of vectors that are not as their encoder says", ""
    EXPIRED_LEASE = "expired_lease", "leases that ran out over five minutes ago", "given back"
    NOT_DELETED = "not_deleted", "images that were deleted and are registered still", "deleted"


BY_CODE: dict[str, Fault] = {str(fault): fault for fault in Fault}
