"""The error tree. The first line of a class's docstring is what its users read when no better message is known.

LookalikeError
├── ConfigurationError      a setting is missing or wrong
├── ServiceError            a database, broker or embedded server cannot be used
│   └── AwayError               it is not there for the moment: waiting helps
├── ContractError           program and database are of versions that do not fit
├── SourceError             a source of images cannot be read at all
│   └── ForbiddenAddressError   it names an address that outsiders may not have us reach
├── UnknownEventError       a message of a queue is of no known kind
├── UnknownImageError       no image has this key, or it has no vector
│   └── NotEmbeddedError        it is registered, and has no vector
├── UnknownClusterError     no cluster has this number
├── UnknownSetError         no set of unwanted images has this name
├── UnknownMapError         no map was made of this encoder
├── UnknownDecisionError    no decision has this number
├── OutdatedDecisionError   it cannot be taken back any more
├── EncoderError            an encoder cannot be used
│   ├── UnknownEncoderError
│   ├── WeightsError        its weights cannot be had
│   └── FingerprintError    it does not give the vectors that it gave before
├── LostLeaseError          somebody else holds the chunk now
└── ImageError              one image failed; carries a Reason
"""

from lookalike.reasons import Reason


class LookalikeError(Exception):
    """Something went wrong in lookalike."""

    def __str__(self) -> str:
        return super().__str__() or (self.__doc__ or "").splitlines()[0]


class ConfigurationError(LookalikeError):
    """A setting is missing or wrong."""


class ServiceError(LookalikeError):
    """A service that lookalike needs cannot be reached."""


class AwayError(ServiceError):
    """A service that lookalike needs is away; it is waited for where that makes sense."""


class ContractError(LookalikeError):
    """This program and the database are of versions that do not fit."""


class SourceError(LookalikeError):
    """The source cannot be read."""


class ForbiddenAddressError(SourceError):
    """The address leads into a private network: LOOKALIKE_ALLOW_NETWORKS can allow it."""


class UnknownEventError(LookalikeError):
    """The message is of no known kind, or cannot be read."""

    reason = Reason.UNKNOWN_EVENT


class UnknownImageError(LookalikeError):
    """No image has this key, or it has no vector yet."""


class NotEmbeddedError(UnknownImageError):
    """The image is registered, and has no vector yet."""


class UnknownClusterError(LookalikeError):
    """No cluster has this number."""


class UnknownSetError(LookalikeError):
    """No set of unwanted images has this name."""


class UnknownDecisionError(LookalikeError):
    """No decision has this number."""


class OutdatedDecisionError(LookalikeError):
    """The decision cannot be taken back: it was already, or something else was decided since."""


class UnknownMapError(LookalikeError):
    """No map was made of this encoder."""


class EncoderError(LookalikeError):
    """The encoder cannot be used."""


class UnknownEncoderError(EncoderError):
    """No encoder has this name."""


class WeightsError(EncoderError):
    """The weights of the encoder are not on this machine and could not be downloaded."""


class FingerprintError(EncoderError):
    """The encoder gives other vectors than those the archive was made with."""


class LostLeaseError(LookalikeError):
    """The lease on the chunk is lost: somebody else holds it, or it is finished."""


class ImageError(LookalikeError):
    """One image failed.

    `reason` is from the fixed list, `detail` one line for people (never a secret), `retry_after` the seconds a host
    asked to wait, when it did.
    """

    def __init__(self, reason: Reason, detail: str = "", retry_after: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
        self.retry_after = retry_after
