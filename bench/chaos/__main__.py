"""`python -m bench.chaos [--seeds 0-19]`: runs seeds one after the other and prints the tables over all results."""

import argparse
import signal
import sys
from pathlib import Path

from bench.chaos.faults import FAULTS
from bench.chaos.plan import draw_plan
from bench.chaos.report import markdown, read_results
from bench.chaos.run import Result, run

IMAGES = 2000
SINGLES, PAIRS = 10, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0-19", help="such as 7, or 0-19; none: only print the tables")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--encoder", help="a real one; else a projection that costs next to nothing")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one run")
    parser.add_argument("--results", type=Path, default=Path(".lookalike/chaos"))
    options = parser.parse_args()
    # When told to stop, leave by way of the blocks that end services and processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sound = True
    for seed in _numbers(options.seeds):
        plan = draw_plan(seed, options.images, tuple(FAULTS), SINGLES, PAIRS)
        folder = options.results / f"{options.encoder or 'projection'}-{seed:03}"
        result = run(plan, folder, encoder=options.encoder, workers=options.workers, limit=options.limit)
        print(_describe(result), flush=True)
        sound = sound and result.sound
    print(markdown(read_results(options.results)))
    sys.exit(0 if sound else 1)


def _numbers(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1) if text != "none" else range(0)


def _describe(result: Result) -> str:
    verdict = result.verdict
    assert verdict is not None
    return (
        f"seed {result.seed}: {'sound' if result.sound else 'NOT SOUND'}, {result.seconds:.0f} s, "
        f"{len(result.blows)} blows, {verdict.done} done, {verdict.failed} failed, {len(verdict.lost)} lost, "
        f"{len(verdict.twice)} twice, otherwise {verdict.otherwise}, in vain {result.encoded_in_vain}, "
        f"crashes {result.crashes}, balanced {result.balanced}, stops {result.stops}, unasked {result.unasked}"
    )


if __name__ == "__main__":
    main()
