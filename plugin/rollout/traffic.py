"""Recorded requests for two versions of one model, each with its version in the URL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trimton.core.errors import InfrastructureError
from trimton.perf.load.arms import Load, ServedArm
from trimton.perf.load.infer_request import infer_request
from trimton.perf.load.requests import encode_message, within_memory
from trimton.perf.targets.endpoint import Endpoint
from trimton.plugin.recorded import Recorded
from trimton.plugin.rollout.decision import BASELINE, CANARY

_PROBE_S = 1.0
# Of what one request at a time gives: at more, waiting in bursts drowns what is to be compared.
_UTILISATION = 1 / 5


@contextmanager
def version_arms(
    address: str, model: str, versions: tuple[int, int], recorded: Recorded
) -> Iterator[tuple[ServedArm, ServedArm]]:
    """An arm for each of ``versions`` (baseline, canary) of ``model`` on the server at ``address``.

    Every sample of ``recorded`` is one request.
    """
    with Endpoint(address) as endpoint:
        specs = endpoint.model_metadata(model).inputs
        feeds = [recorded.part(i, i + 1).inputs for i in range(len(recorded))]
        baseline, canary = (
            ServedArm(
                variant=name,
                endpoint=endpoint,
                model=model,
                requests=within_memory(
                    encode_message(
                        infer_request(model, feed, specs), str(address), version=str(version)
                    )
                    for feed in feeds
                ),
            )
            for name, version in zip((BASELINE, CANARY), versions, strict=True)
        )
        yield baseline, canary


def full_rate(baseline: ServedArm, given_rps: float | None) -> float:
    """The requests per second that 100 % stand for.

    Given, or a fifth of what one at a time gives.
    """
    if given_rps is not None:
        return given_rps
    tally, _ = baseline.run(Load(concurrency=1, round=0, window_s=_PROBE_S, warmup_s=_PROBE_S / 2))
    if tally.requests == 0:
        raise InfrastructureError(
            f"the version in service answers no recorded request ({tally.error_example})."
        )
    return _UTILISATION * tally.requests / tally.duration_s
