"""How a worker enters an archive: it compares itself with the database, then takes a name.

It changes nothing before both fit, and may be taken from its beginning when the database goes away on the way.
"""

import logging
import socket
import time

from lookalike import archive, ledger, sweeping
from lookalike.calibration import Calibration
from lookalike.contract import check_contract
from lookalike.database import connect
from lookalike.encoders import EncoderSpec
from lookalike.errors import ContractError
from lookalike.migrate import missing
from lookalike.settings import Settings
from workers.network import Encoder, Fingerprint, check_fingerprint

log = logging.getLogger(__name__)


def enter(
    settings: Settings, spec: EncoderSpec, encoder: Encoder, database_url: str
) -> tuple[ledger.Connection, str, Calibration]:
    """Compares database and encoder, and takes a name and what is left of who had it before.

    Returns the connection that holds the lock on the name.
    """
    lifeline = connect(database_url, application_name="lookalike worker")
    try:
        calibration = _compare(lifeline, settings, spec, encoder)
        time.sleep(sweeping.grace_due(lifeline, settings.lease_seconds))
        name = sweeping.claim_worker_name(lifeline, socket.gethostname())
        crashed = sweeping.sweep(lifeline, name).crashed
    except BaseException:
        lifeline.close()
        raise
    if crashed:
        log.warning("worker %s: took back %d chunks of a crashed predecessor", name, crashed)
    return lifeline, name, calibration


def _compare(
    connection: ledger.Connection, settings: Settings, spec: EncoderSpec, encoder: Encoder
) -> Calibration:
    """Raises an error, which says what to do, unless database and encoder fit us and each other."""
    if files := missing(connection):
        raise ContractError(f"the database lacks {len(files)} migrations: run `lookalike migrate` first")
    check_contract(connection)
    archive.ensure_encoder(connection, spec, settings.chunk_size)
    recorded = archive.recorded_fingerprint(connection, spec.name, encoder.fingerprint.to_json())
    check_fingerprint(encoder, Fingerprint.from_json(recorded))
    return archive.load_calibration(connection, spec.name)
