"""TLS, client certificates, headers and tokens against servers that ask for them."""

from __future__ import annotations

import http.server
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from trimton.core.errors import InfrastructureError, InputError
from trimton.perf.load.closed_loop import run_closed_loop
from trimton.perf.load.protocols import PROTOCOLS, prepare_load, protocol_named
from trimton.perf.targets.access import Access, parse_headers
from trimton.perf.targets.address import Address
from trimton.perf.targets.tensors import TensorSpec
from trimton.perf.targets.tls import Tls

CERTIFICATES = Path(__file__).parent / "certificates"
AUTHORITY = CERTIFICATES / "ca.pem"
CLIENT = Tls(AUTHORITY, CERTIFICATES / "client.pem", CERTIFICATES / "client.key")
SPEC = TensorSpec("x", "FP32", (None, 2))
FEED = {"x": np.ones((1, 2), np.float32)}
HEADERS = parse_headers(["X-Tenant: blue"], token="secret")


@dataclass
class Server:
    """Where it listens and which headers it has seen."""

    address: Address
    seen: list[dict[str, str]]


@pytest.fixture
def https_server():
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(b'{"name":"secured","version":"1"}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(b"{}")

        def answer(self, body: bytes) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
    context.load_verify_locations(AUTHORITY)
    context.verify_mode = ssl.CERT_REQUIRED
    # The handshake belongs to the thread of the connection: a client that fails it stops nobody.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Server(Address("localhost", server.server_address[1]), seen)
    server.shutdown()
    server.server_close()


@pytest.fixture
def grpcs_server():
    seen = []

    def answer(response):
        def handle(request, context):
            seen.append(dict(context.invocation_metadata()))
            return response

        return handle

    def handler(request_type, response):
        return grpc.unary_unary_rpc_method_handler(
            answer(response),
            request_deserializer=request_type.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )

    server = grpc.server(ThreadPoolExecutor(4))
    methods = {
        "ServerMetadata": handler(
            service_pb2.ServerMetadataRequest,
            service_pb2.ServerMetadataResponse(name="secured", version="1"),
        ),
        "ModelInfer": handler(
            service_pb2.ModelInferRequest, service_pb2.ModelInferResponse(model_name="m")
        ),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
    )
    pair = tuple((CERTIFICATES / f"server.{kind}").read_bytes() for kind in ("key", "pem"))
    credentials = grpc.ssl_server_credentials([pair], AUTHORITY.read_bytes(), True)
    port = server.add_secure_port("localhost:0", credentials)
    server.start()
    yield Server(Address("localhost", port), seen)
    server.stop(None)


@pytest.fixture(params=["http", "grpc"])
def secured(request):
    """A protocol and its server that asks for a client certificate."""
    fixture = {"http": "https_server", "grpc": "grpcs_server"}[request.param]
    return PROTOCOLS[request.param], request.getfixturevalue(fixture)


def load(protocol, access):
    prepared = prepare_load(protocol, access, "m", [FEED], [SPEC])
    return run_closed_loop(prepared.connector, prepared.requests, 2, window_s=0.1, warmup_s=0)


def test_control_plane_and_load_are_secured_and_carry_headers_and_token(secured):
    protocol, server = secured
    access = Access(server.address, CLIENT, HEADERS)
    with protocol.endpoint(access) as endpoint:
        assert endpoint.server_metadata().name == "secured"
    window = load(protocol, access)
    assert window.requests > 2
    assert not window.errors
    assert len(server.seen) == window.all_answers + 1
    for headers in server.seen:
        assert headers["x-tenant"] == "blue"
        assert headers["authorization"] == "Bearer secret"


def test_an_unknown_authority_is_one_sentence(secured):
    protocol, server = secured
    access = Access(server.address, Tls())
    with protocol.endpoint(access) as endpoint, pytest.raises(InfrastructureError):
        endpoint.server_metadata()
    with pytest.raises(InfrastructureError, match=f"{server.address} does not accept connections"):
        load(protocol, access)
    assert not server.seen


def test_insecure_trusts_a_certificate_for_another_name(secured):
    protocol, server = secured
    other_name = Address("127.0.0.1", server.address.port)
    trusting = Tls(None, CLIENT.certificate_file, CLIENT.key_file, insecure=True)
    with (
        protocol.endpoint(Access(other_name, CLIENT)) as endpoint,
        pytest.raises(InfrastructureError),
    ):
        endpoint.server_metadata()
    access = Access(other_name, trusting)
    with protocol.endpoint(access) as endpoint:
        assert endpoint.server_metadata().name == "secured"
    assert load(protocol, access).requests > 2


@pytest.mark.parametrize(
    ("tls", "sentence"),
    [
        (Tls(Path("/no/ca.pem")), "/no/ca.pem: holds no usable certificates"),
        (Tls(CERTIFICATES / "README.md"), "README.md: holds no usable certificates"),
        (Tls(certificate_file=AUTHORITY), "ca.pem: is no usable client certificate"),
        (
            Tls(None, CERTIFICATES / "client.pem", CERTIFICATES / "server.key"),
            "client.pem: is no usable client certificate",
        ),
    ],
)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_wrong_file_is_named_whatever_the_protocol(tls, sentence, protocol):
    access = Access(Address("localhost", 1), tls)
    with pytest.raises(InputError, match=sentence):
        PROTOCOLS[protocol].endpoint(access)
    with pytest.raises(InputError, match=sentence):
        PROTOCOLS[protocol].connector(access, False, 0)


def test_headers_are_read_as_they_are_written():
    assert parse_headers(["A: b:c ", "x-y:"]) == (("A", "b:c"), ("x-y", ""))


@pytest.mark.parametrize("text", ["no colon", ": no name", "a b: c", "a: b\r\nc: d", "ä: b"])
def test_what_is_no_header_is_one_sentence(text):
    with pytest.raises(InputError, match="give NAME: VALUE"):
        parse_headers([text])


def test_a_token_with_a_line_break_is_refused():
    with pytest.raises(InputError, match="bearer token"):
        parse_headers([], token="a\r\nEvil: 1")


def test_an_unknown_protocol_is_named_with_the_known_ones():
    assert protocol_named("gRPC").name == "grpc"
    for unknown in ("soap", "grpc-stream"):
        with pytest.raises(
            InputError, match=f"'{unknown}' is no protocol; choose one of http, grpc"
        ):
            protocol_named(unknown)


def test_only_grpc_streams():
    assert protocol_named("grpc", streaming=True).name == "grpc-stream"
    with pytest.raises(InputError, match="streamed over gRPC only"):
        protocol_named("http", streaming=True)
