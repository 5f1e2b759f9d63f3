"""Loading over gRPC.

Triton's HTTP front end carries out a load in the thread that was asked, and every connection that
thread has waits for as long as it takes. Its gRPC front end does not.
"""

from __future__ import annotations

from trimton.core.errors import InfrastructureError, InputError
from trimton.plugin.server.control import one_sentence

_NO_ANSWER = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.CANCELLED", "StatusCode.UNKNOWN")


def load_over_grpc(address: str, model: str, timeout_s: float) -> None:
    """Load ``model`` on the server at ``address`` (``host:port`` of its gRPC port), and wait.

    Raises InputError with the server's reason, InfrastructureError where nothing answers.
    """
    from tritonclient import grpc
    from tritonclient.utils import InferenceServerException

    with grpc.InferenceServerClient(address) as client:
        try:
            client.load_model(model, client_timeout=timeout_s)
        except InferenceServerException as error:
            reason = str(error.message())
            is_down = error.status() == "StatusCode.UNAVAILABLE" and "connect" in reason
            if is_down or error.status() in _NO_ANSWER:
                raise InfrastructureError(
                    f"the gRPC port {address} of the server does not answer "
                    f"({one_sentence(reason).rstrip('.')})."
                ) from error
            raise InputError(f"model {model!r} cannot be loaded: {one_sentence(reason)}") from error


def is_live_over_grpc(address: str, timeout_s: float = 5.0) -> bool:
    """Whether a Triton speaks gRPC at ``address``."""
    from tritonclient import grpc
    from tritonclient.utils import InferenceServerException

    with grpc.InferenceServerClient(address) as client:
        try:
            return bool(client.is_server_live(client_timeout=timeout_s))
        except InferenceServerException:
            return False
