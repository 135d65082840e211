"""`headrace up`: an embedded Redis and both pools in the foreground."""

import shlex
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from console.stack import Stack
from producer.address import read_address
from producer.client import Producer
from producer.errors import ConfigurationError
from producer.settings import ProducerSettings, load
from producer.wire.models import DEFAULT_EMBED_MODEL, DEFAULT_RERANK_MODEL, OFFLINE, is_directory_name
from workers.stopping import SignalCount

_READY_S = 3600.0
"""A production model may have to be downloaded first."""

_WATCH_S = 0.1

OFFLINE_MODELS = {"HEADRACE_EMBED_MODEL": OFFLINE, "HEADRACE_RERANK_MODEL": OFFLINE}


def run_up(environ: Mapping[str, str], *, offline: bool, port: int | None, data_directory: Path | None) -> None:
    """Start everything, say how to use it, and stop in order at SIGTERM or Ctrl-C.

    Raises:
        ConfigurationError: there is no server to start, the port is taken, or a pool ends by itself.
    """
    console = Console()
    requests = SignalCount()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: requests.note(number))
    environ = {**environ, **(OFFLINE_MODELS if offline else {})}
    port, database = _place(environ, port)
    with Stack(environ, port=port, database=database, data_directory=data_directory, requests=requests) as stack:
        settings = load(ProducerSettings, stack.environ)
        with Producer(settings) as producer:
            models = f"embed {settings.embed_model}, rerank {settings.rerank_model}"
            console.print(f"Redis listens on {stack.url}; loading {models} …")
            stack.wait_ready(producer, _READY_S)
        if not requests.count:
            console.print("Ready. In another terminal:")
            exports = {"REDIS_URL": stack.url, **_models_to_name(settings)}
            words = [f"{name}={shlex.quote(value)}" for name, value in exports.items()]
            console.print("  export " + " ".join(words), soft_wrap=True, highlight=False, markup=False)
            console.print("  headrace enqueue embed 'where can I swim?'")
            console.print("Ctrl-C stops everything.")
        while not requests.count:
            stack.check()
            time.sleep(_WATCH_S)
        console.print("Stopping … (once more: at once)")


def _models_to_name(settings: ProducerSettings) -> dict[str, str]:
    """The variables that tell producers in any folder the models, where these are not the default ones."""
    named = {
        "HEADRACE_EMBED_MODEL": (settings.embed_model, DEFAULT_EMBED_MODEL),
        "HEADRACE_RERANK_MODEL": (settings.rerank_model, DEFAULT_RERANK_MODEL),
    }
    return {
        variable: str(Path(model).expanduser().absolute()) if is_directory_name(model) else model
        for variable, (model, default) in named.items()
        if model != default
    }


def _place(environ: Mapping[str, str], port: int | None) -> tuple[int, int]:
    """Choose port and database number: by flag, or where `REDIS_URL` says that clients will look.

    Raises:
        ConfigurationError: `REDIS_URL` is of another host, where this cannot start a server, or of Sentinels.
    """
    if port is not None:
        return port, 0
    address = read_address(load(ProducerSettings, environ))
    if address.sentinels:
        raise ConfigurationError("REDIS_URL names Sentinels, and `up` starts a Redis here: unset it or pass --port")
    if address.options.get("host", "localhost") not in ("localhost", "127.0.0.1"):
        raise ConfigurationError("REDIS_URL is of another host, and `up` starts a Redis here: unset it or pass --port")
    return address.options.get("port", 6379), address.options.get("db") or 0
