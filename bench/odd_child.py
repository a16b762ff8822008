"""`python -m bench.odd_child`: decodes the file of each line; answers CPU seconds, bytes of memory, the outcome."""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from bench.usage import measure_memory, reset_memory
from lookalike.encoders import find_encoder
from lookalike.errors import ImageError
from workers.decode import decode


def main() -> None:
    warnings.filterwarnings("ignore", category=UserWarning)
    preprocessing = find_encoder("efficientnet-lite0").preprocessing
    out = np.empty((preprocessing.crop, preprocessing.crop, 3), np.uint8)
    for line in sys.stdin:
        data = Path(json.loads(line)).read_bytes()
        reset_memory()
        before, since = measure_memory(), time.thread_time()
        try:
            decode(data, preprocessing, out, 200_000_000)
            said = "done"
        except ImageError as error:
            said = str(error.reason)
        answer = time.thread_time() - since, measure_memory() - before, said
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
