"""Who may ask the page's server for what.

It reads and changes files of its user, so a web page that happens to be open must get nothing from it. Three checks
keep that so: the name that the browser asked for (a page that rebinds its own DNS name to 127.0.0.1 keeps that name),
the page that a request comes from, and, for whatever changes something, a token that only the printed address holds.
"""

from __future__ import annotations

import functools
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from flask import Flask, Response, abort, has_request_context, redirect, request
from werkzeug.wrappers import Response as AnyResponse

HEADER = "X-CSRFToken"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PATHS = ("/_dash-", "/assets/", "/_favicon.ico")
_MOST_BYTES = 4 << 20
"""Of a request: the page's own are a few kilobytes, and a selection of 5,000 points some hundreds."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Guard:
    """The checks of one server, on `host` and `port`, and the token of one start of it."""

    def __init__(self, host: str, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self.cookie = (
            f"nas_browse_{port}"  # a browser keeps cookies by host, and another port may be another nas browse
        )
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

    def may_act(self) -> bool:
        """Whether the page of this request was opened with the token."""
        return has_request_context() and self._is_token(request.cookies.get(self.cookie, ""))

    def needs_token(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """A callback that changes something: without the token in its header the request is refused (403)."""

        @functools.wraps(function)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            if not self._is_token(request.headers.get(HEADER, "")):
                abort(403, "this page was opened without the token that nas browse printed, so it can only be read")
            return function(*args, **kwargs)

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
        if request.path == "/" and "token" in request.args:
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
        """Put the token of the printed address into a cookie, and take it out of the address bar."""
        rest = "&".join(part for part in request.query_string.decode().split("&") if not part.startswith("token="))
        answer = redirect(f"/?{rest}" if rest else "/", 303)
        if self._is_token(request.args["token"]):
            # Readable to the page's scripts: Dash sends it back in a header, which no other site can do.
            answer.set_cookie(self.cookie, self.token, samesite="Strict")
        return answer
