"""The page's server: werkzeug's, one thread a request, for the one person who started it."""

from __future__ import annotations

import gc
import logging
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from werkzeug.serving import BaseWSGIServer, make_server

from nas.common.errors import InputError, arg
from nas.runs.store import open_run
from nas.views.page.actions import Jobs
from nas.views.page.app import make_app
from nas.views.page.guard import CODE, TOKEN, Guard
from nas.views.page.runs import LiveRun
from nas.views.page.state import Runs

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Server:
    """A server that is bound, at `url`, which holds its token; `serve` answers until Ctrl-C or SIGTERM.

    `url_once` leads there too, once: for the command line of a browser, which others can read.
    """

    url: str
    url_once: str
    runs: Runs
    jobs: Jobs
    wsgi: BaseWSGIServer

    def serve(self, announce: Callable[[], None] = lambda: None) -> None:
        """Answer requests, from `announce` on; on return it is closed, and what its pages started has ended."""
        threading.Thread(target=self._look_ahead, daemon=True).start()
        # A shell that starts a program in the background has Ctrl-C ignored there.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        try:
            with suppress(KeyboardInterrupt):
                announce()
                self.wsgi.serve_forever()
        finally:
            self.wsgi.server_close()
            self.jobs.close()

    def _look_ahead(self) -> None:
        """The first look at thousands of records takes seconds, in which a browser can start."""
        for _, run in self.runs.items():
            run.look()
        gc.freeze()  # records stay: looking through all of them for garbage takes longer than many a figure


def open_server(directories: Sequence[Path], host: str = LOOPBACK[0], port: int = 0) -> Server:
    """Bind a server of the page on some run directories; port 0 is any free one.

    Raises `InputError` where one of them is no run directory, or the address cannot be had.
    """
    runs = Runs([LiveRun(open_run(path.absolute())) for path in dict.fromkeys(directories)])
    bound = _bound(host, port)
    port = bound.getsockname()[1]
    guard, jobs = Guard(host, port), Jobs()
    app = make_app(runs, guard, jobs)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line a request
    shown = "127.0.0.1" if host == "0.0.0.0" else "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
    with bound:
        wsgi = make_server(host, port, app.server, threaded=True, fd=bound.fileno())
    address = f"http://{shown}:{port}/"
    return Server(f"{address}?{TOKEN}={guard.token}", f"{address}?{CODE}={guard.code()}", runs, jobs, wsgi)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{arg('host')} {host}: no address of this machine") from error
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(128)
    except OSError as error:
        bound.close()
        if error.errno in (98, 48):
            hint = (
                f"another program has it, perhaps another nas browse; give another {arg('port')}, or 0 for any free one"
            )
        else:
            hint = error.strerror or str(error)
        raise InputError(f"{arg('port')} {port} on {host}: {hint}") from error
    return bound
