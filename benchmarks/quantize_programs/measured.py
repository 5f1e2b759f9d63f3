"""What a program of this folder is: it quantises one file, in a process of its own.

    python PROGRAM.py SOURCE.onnx CALIBRATION.npz RESULT.onnx OPTIONS.json

Every array of CALIBRATION has one request of the model's input along its first axis. The last
line printed is a JSON object: the seconds of the work, without imports, and the bytes that
memory rose above what the process had before it. What fails ends in its traceback.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np


def measured(compress):
    """Call ``compress(source, requests, result, options)`` with this process's arguments."""
    source, calibration, result, options = sys.argv[1:]
    with np.load(calibration) as archive:
        arrays = dict(archive)
    count = len(next(iter(arrays.values())))
    # The ellipsis keeps scalars arrays.
    requests = [{name: array[i, ...] for name, array in arrays.items()} for i in range(count)]
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start = time.perf_counter()
    compress(Path(source), requests, Path(result), json.loads(options))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": max(0, peak - before)}))
