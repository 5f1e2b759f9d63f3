"""What a program of this folder is: it quantises one file, in a process of its own.

    python PROGRAM.py SOURCE.onnx CALIBRATION.npz RESULT.onnx OPTIONS.json

Every array of CALIBRATION has one request of the model's input along its first axis. The last
line printed is a JSON object: the seconds of the work, without imports, and the bytes that
memory rose above what the process had before it. What fails ends in its traceback.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np


def measured(work, prepare=Path):
    """Call ``work(prepare(source), requests, result, options)`` with this process's arguments.

    ``prepare`` is not measured.
    """
    source, calibration, result, options = sys.argv[1:]
    with np.load(calibration) as archive:
        arrays = dict(archive)
    count = len(next(iter(arrays.values())))
    # The ellipsis keeps scalars arrays.
    requests = [{name: array[i, ...] for name, array in arrays.items()} for i in range(count)]
    prepared = prepare(source)
    # Sets the high-water mark back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = _high_water_bytes()
    start = time.perf_counter()
    work(prepared, requests, Path(result), json.loads(options))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_bytes": _high_water_bytes() - before}))


def _high_water_bytes():
    """The most memory resident; ru_maxrss would count the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])
