"""Who may ask the page's server for what.

It reads and changes files of its user, so a web page that happens to be open must get nothing from it. Three checks
keep that so: the name that the browser asked for (a page that rebinds its own DNS name to 127.0.0.1 keeps that name),
the page that a request comes from, and, for whatever changes something, a token that only the printed address holds.

The page keeps that token in its own storage and sends it along. It is in no cookie, which a browser would send to every other port of the
host too, and on no command line, which every user of the machine can read: a browser that is started gets a code for one use.
"""

from __future__ import annotations

import functools
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, abort, redirect, request
from werkzeug.wrappers import Response as AnyResponse

TOKEN, CODE = "token", "code"
"""Parameters of the address."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PATHS = ("/_dash-", "/assets/", "/_favicon.ico")
_MOST_BYTES = 4 << 20
"""Of a request: the page's own are a few kilobytes, and a selection of 5,000 points some hundreds."""

_T = TypeVar("_T")


class Guard:
    """The checks of one server, on `host` and `port`, and the token of one start of it."""

    def __init__(self, host: str, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._codes: set[str] = set()
        self._names = {*_LOOPBACK, host.lower()}
        self._any_address = host in ("0.0.0.0", "::")
        if self._any_address:
            self._names.add(socket.gethostname().lower())

    def install(self, server: Flask, inline_scripts: Sequence[str]) -> None:
        """Check every request to a server and set the headers of every answer.

        `inline_scripts` are the hashes of those that its pages hold, as a content security policy names them.
        """
        server.config["MAX_CONTENT_LENGTH"] = _MOST_BYTES
        policy = (
            "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; "
            # Plotly's WebGL compiles its shaders' code with eval, and its figures, like the grid, set styles.
            f"style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-eval' {' '.join(inline_scripts)}; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
        }

        def add_headers(response: Response) -> Response:
            response.headers.update(headers)
            if not request.path.startswith(("/_dash-component-suites/", "/assets/")):
                response.headers["Cache-Control"] = "no-store"
            return response

        server.before_request(self._check)
        server.after_request(add_headers)

    def code(self) -> str:
        """What stands for the token in an address, once."""
        code = secrets.token_urlsafe(16)
        self._codes.add(code)
        return code

    def may_act(self, token: object) -> bool:
        """Whether a page holds the token."""
        return isinstance(token, str) and self._is_token(token)

    def needs_token(self, function: Callable[[object], _T]) -> Callable[[object, object, object], _T]:
        """A callback that changes something, of (clicks, what it is about, token): without the token it is refused (403)."""

        @functools.wraps(function)
        def checked(_: object, about: object, token: object) -> _T:
            if not self.may_act(token):
                abort(403, "this page was opened without the token that nas browse printed, so it can only be read")
            return function(about)

        return checked

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.token.encode())

    def _check(self) -> AnyResponse | None:
        if not self._is_own_name(request.host):
            abort(421, "nas browse does not serve this host name")
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("Origin")
            if origin is not None and origin != f"{request.scheme}://{request.host}":
                abort(403, "a request from another page")
            if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
                abort(403, "a request from another page")
        if request.path != "/" and (not request.path.startswith(_PATHS) or "//" in request.path):
            abort(404)  # Dash would answer any other path with its page
        if request.path == "/" and (TOKEN in request.args or CODE in request.args):
            return self._welcome()
        return None

    def _is_own_name(self, host: str) -> bool:
        """Any port will do: a tunnel (`ssh -L`) has its own, and `Origin` is compared with it."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if self._any_address:  # an address cannot be rebound, a name can
            try:
                ipaddress.ip_address(name)
            except ValueError:
                pass
            else:
                return True
        return name in self._names

    def _welcome(self) -> AnyResponse:
        """Lead to the page; what is behind # stays in the browser, where the page's script takes the token into its storage."""
        parts = request.query_string.decode().split("&")
        rest = "&".join(part for part in parts if not part.startswith((f"{TOKEN}=", f"{CODE}=")))
        code = request.args.get(CODE, "")
        known = code in self._codes or self._is_token(request.args.get(TOKEN, ""))
        self._codes.discard(code)
        return redirect(f"/{f'?{rest}' if rest else ''}{f'#{TOKEN}={self.token}' if known else ''}", 303)
