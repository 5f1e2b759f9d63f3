"""Nothing but running the model on the samples: what any calibration must take at least."""

import onnxruntime
from measured import measured
from trimton_calibration import batches


def session(source):
    return onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])


def inference(prepared, requests, result, options):
    for feed in batches(requests, options["samples"], options["batch"]):
        prepared.run(None, feed)


if __name__ == "__main__":
    measured(inference, session)
