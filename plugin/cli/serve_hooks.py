"""``trimton serve-hooks``: answer pipelines over HTTP by the verdicts of runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from trimton.core.errors import InputError
from trimton.plugin.cli.output import console

_NEEDED = ("fastapi", "uvicorn", "prometheus_client")


def command(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="Folder of run directories.")],
    token_file: Annotated[
        Path,
        typer.Option(help="File with the token that requests must carry, closed to other users."),
    ],
    repository: Annotated[
        Path | None,
        typer.Option(help="Model repository, for versions that are asked for by number."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 is any free one.")] = 8080,
    policy: Annotated[
        str | None,
        typer.Option(
            metavar="DIGEST", help="Only verdicts of this policy count [default: of any]."
        ),
    ] = None,
    max_age_days: Annotated[float, typer.Option(help="How old a verdict may be.")] = 30.0,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate with its chain, PEM, for HTTPS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key.")] = None,
) -> None:
    """Answer Flagger's webhooks and Argo Rollouts' web metric by the verdicts in a folder.

    A version passes if the newest verdict on its bytes is a pass, or compared others with it as the
    baseline. No verdict is no pass. Nothing is ever written. Log lines go to standard error.

    Example: trimton serve-hooks runs --token-file token --host 0.0.0.0
    """
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise InputError("serve-hooks needs more packages; run: pip install 'trimton[hooks]'")
    if (tls_cert is None) != (tls_key is None):
        raise InputError("--tls-cert and --tls-key are needed both or not at all.")
    import logging

    from trimton.plugin.hooks.app import build_app
    from trimton.plugin.hooks.rulings import open_judge
    from trimton.plugin.hooks.serving import Tls, listen, read_token, serve

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    app = build_app(open_judge(runs, repository, policy, max_age_days), read_token(token_file))
    tls = Tls(tls_cert, tls_key) if tls_cert and tls_key else None
    with listen(host, port) as listening:
        address = listening.getsockname()
        scheme = "http" if tls is None else "https"
        console().print(f"listening on {scheme}://{address[0]}:{address[1]}", soft_wrap=True)
        serve(app, listening, tls)
