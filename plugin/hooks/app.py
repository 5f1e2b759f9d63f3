"""The hooks as an HTTP application: which path asks what, and which status is the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from trimton.core.errors import InfrastructureError
from trimton.plugin.hooks.calls import FlaggerCall, Health, ModelName, Refusal, VersionName
from trimton.plugin.hooks.guard import NOTE, Guard, Limits
from trimton.plugin.hooks.metrics import CONTENT_TYPE, HookMetrics
from trimton.plugin.hooks.rulings import Judge, Ruling, RulingOutcome

# Flagger's hook -> the outcome that its 200 stands for. A rollback hook that succeeds rolls back.
FLAGGER_HOOKS: Mapping[str, RulingOutcome] = {
    "confirm-rollout": "pass",
    "pre-rollout": "pass",
    "confirm-promotion": "pass",
    "rollback": "fail",
}

NO_MORE_THAN = Limits()

_REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "Refused"},
    "5XX": {"model": Refusal, "description": "Cannot be answered now"},
}
_NOT_SO: dict[int | str, dict[str, Any]] = {
    403: {"model": Ruling, "description": "The verdicts do not say so"}
}


def build_app(judge: Judge, token: bytes, limits: Limits = NO_MORE_THAN) -> ASGIApp:
    """The application that answers by ``judge`` to whoever has ``token``."""
    app = FastAPI(
        title="Trimton hooks",
        version="1",
        description="What the verdicts of runs say of a version of a model.",
        docs_url=None,
        redoc_url=None,
        responses=_REFUSALS,
        redirect_slashes=False,
    )
    app.add_exception_handler(RequestValidationError, _wrong_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(InfrastructureError, _unavailable)
    metrics = HookMetrics([f"/flagger/{h}" for h in FLAGGER_HOOKS] + ["/argo/verdict", "/healthz"])
    bearer, basic = HTTPBearer(auto_error=False), HTTPBasic(auto_error=False)
    secured = APIRouter(dependencies=[Security(bearer), Security(basic)])
    for hook, wanted in FLAGGER_HOOKS.items():
        secured.post(
            f"/flagger/{hook}",
            response_model=Ruling,
            responses=_NOT_SO,
            operation_id=hook,
            summary=f"Flagger's {hook} webhook: 200 where the outcome is {wanted}",
        )(_flagger(judge, metrics, hook, wanted))

    @secured.get(
        "/argo/verdict",
        response_model=Ruling,
        operation_id="verdict",
        summary="Argo Rollouts' web metric: look at $.outcome",
    )
    def argo(
        request: Request,
        model: Annotated[ModelName, Query()],
        version: Annotated[VersionName, Query()],
    ) -> Ruling:
        return _rule(judge, metrics, "verdict", request, model, version)

    @secured.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        operation_id="metrics",
        summary="This server's own metrics, for Prometheus",
    )
    def own_metrics() -> Response:
        return Response(metrics.text(), headers={"content-type": CONTENT_TYPE})

    @app.get("/healthz", operation_id="health", summary="Whether the runs can be read")
    def health() -> Health:
        return Health(verdicts=sum(1 for _ in judge.book.all()))

    app.include_router(secured)
    return Guard(app, token, limits, metrics)


def _flagger(
    judge: Judge, metrics: HookMetrics, hook: str, wanted: RulingOutcome
) -> Callable[[Request, FlaggerCall], JSONResponse]:
    def answer(request: Request, call: FlaggerCall) -> JSONResponse:
        subject = call.metadata
        ruling = _rule(judge, metrics, hook, request, subject.model, subject.version)
        status = 200 if ruling.outcome == wanted else 403
        return JSONResponse(asdict(ruling), status)

    return answer


def _rule(
    judge: Judge, metrics: HookMetrics, hook: str, request: Request, model: str, version: str
) -> Ruling:
    ruling = judge.rule(model, version)
    metrics.ruling(hook, ruling.outcome)
    request.scope[NOTE] = f"{ruling.outcome}: {ruling.reason}"
    return ruling


async def _wrong_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return _refusal(request, 400, f"{where}: {first['msg']}.")


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _refusal(request, error.status_code, f"{error.detail}.", error.headers)


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    return _refusal(request, 503, str(error))


def _refusal(
    request: Request, status: int, sentence: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    request.scope[NOTE] = sentence
    return JSONResponse(Refusal(error=sentence).model_dump(), status, headers=headers)
