"""``trimton server``: install, start, look at and remove the local Triton server."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trimton.plugin.cli.output import JsonOption, console, print_json
from trimton.plugin.server.install import install as install_server
from trimton.plugin.server.install import uninstall as uninstall_server
from trimton.plugin.server.installation import Installation, read_installation, server_folder
from trimton.plugin.server.process import TritonServer

app = typer.Typer(
    no_args_is_help=True, help="Install and run a real Triton on this machine, without Docker."
)


@app.command()
def install(
    force: Annotated[bool, typer.Option("--force", help="Install anew, replacing it.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Install a Triton server into the user's cache; does nothing if it is there and whole.

    The folder is $TRIMTON_HOME, else $XDG_CACHE_HOME/trimton, else ~/.cache/trimton.

    Example: trimton server install
    """
    screen = Console(stderr=True, highlight=False)
    if screen.is_terminal:
        with screen.status("looking") as status:
            result = install_server(force=force, notify=status.update)
    else:
        result = install_server(force=force)
    if json_output:
        print_json({"changed": result.changed, **_describe(result.installation)})
    else:
        done = "installed" if result.changed else "already installed"
        console().print(f"{done}: {_line(result.installation)}")


@app.command()
def start(
    repository: Annotated[Path, typer.Argument(help="The Triton model repository, a folder.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Load this model only (can be given several times).")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="HTTP port, 0 = any free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="gRPC port, 0 = any free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Metrics port, 0 = any free one.")] = 8002,
    repoagents: Annotated[
        Path | None, typer.Option(help="Folder of repository agents; see 'trimton agent build'.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="Where the server's log goes [default: a temporary file].")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Serve a repository until Ctrl-C (or SIGTERM), which stops gracefully with exit code 0.

    Prints the addresses when every model is ready; a model that cannot be loaded is an error.

    Example: trimton server start model_repository --model fashion_resnet
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log_file = log or Path(tempfile.gettempdir()) / f"trimton-server-{os.getpid()}.log"
    with TritonServer.start(
        repository,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        load=model,
        repoagents=repoagents,
        log_file=log_file,
    ) as server:
        ready = sorted({entry["name"] for entry in server.control.index() if "state" in entry})
        facts = {
            "version": server.control.version(),
            "http_url": server.http_url,
            "grpc_url": server.grpc_url,
            "metrics_url": server.metrics_url,
            "pid": server.pid,
            "models": ready,
            "log": str(server.log_file),
        }
        if json_output:
            print_json(facts)
        else:
            screen = console()
            screen.print(f"Triton {facts['version']} serves {', '.join(ready)}")
            screen.print(f"  HTTP     http://{server.http_url}")
            screen.print(f"  gRPC     {server.grpc_url}")
            screen.print(f"  metrics  http://{server.metrics_url}/metrics")
            screen.print(f"  log      {server.log_file}", soft_wrap=True)
            screen.print("Ctrl-C stops it.")
        sys.stdout.flush()
        try:
            server.wait()
        except KeyboardInterrupt:
            server.stop(drain=True)  # a second Ctrl-C ends the waiting


@app.command()
def status(json_output: JsonOption = False) -> None:
    """Say whether a server is installed, and which.

    Example: trimton server status --json
    """
    installation = read_installation(server_folder())
    defect = installation.defect() if installation else "none is installed"
    if json_output:
        facts = _describe(installation) if installation else {}
        print_json({"installed": defect is None, "defect": defect, **facts})
    elif installation and defect is None:
        console().print(f"installed: {_line(installation)}")
    else:
        console().print(f"no usable server: {defect}; run 'trimton server install'")


@app.command()
def uninstall(json_output: JsonOption = False) -> None:
    """Remove the installed server from the user's cache.

    Example: trimton server uninstall
    """
    removed = uninstall_server()
    if json_output:
        print_json({"changed": removed})
    else:
        console().print("removed" if removed else "none was installed")


def _describe(installation: Installation) -> dict[str, str]:
    return {
        "folder": str(installation.folder),
        "triton_version": installation.triton_version,
        "onnxruntime_version": installation.onnxruntime_version,
        "numpy_version": installation.numpy_version,
        "python_version": installation.python_version,
    }


def _line(installation: Installation) -> str:
    return (
        f"Triton {installation.triton_version} with ONNX Runtime "
        f"{installation.onnxruntime_version} in {installation.folder}"
    )
