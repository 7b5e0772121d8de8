"""A logged-in session with a hub: tokens, reading one's own writes, problems as exceptions."""

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson

from flip_client.problem import Problem, Unreachable

_PATIENCE_S = 30.0
_MOST_VERSIONS = 16


class Session:
    """Requests to one hub, as nobody until `login`.

    Every version that an answer tells is sent along with the next requests, so that no service answers from before what
    was just written. An access token that ran out is renewed once, by the refresh cookie.
    """

    def __init__(self, url: str, ca: Path | None = None) -> None:
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
        self._http = httpx.Client(base_url=url, verify=verify, timeout=httpx.Timeout(60, connect=10))
        self._token: str | None = None
        self._versions: dict[str, int] = {}

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def login(self, path: str, credentials: dict[str, str]) -> None:
        """Log in at one of `auth`'s routes that answer with an access token. Raises Problem."""
        self._token = None
        self._token = self.request("POST", path, json=credentials)["access_token"]

    def kept(self) -> dict[str, Any]:
        """What `resume` needs to go on as the same person: the refresh cookie and what was written. It is a secret."""
        return {"cookies": dict(self._http.cookies.items()), "versions": self._versions}

    def resume(self, kept: dict[str, Any]) -> None:
        """Go on where `kept` was taken. Raises Problem where the session has ended since."""
        for name, value in kept["cookies"].items():
            self._http.cookies.set(name, value)
        self._versions = dict(kept["versions"])
        self._token = self.request("POST", "/api/auth/refresh")["access_token"]

    def get(self, path: str, **query: Any) -> Any:
        """What a GET answers, parsed. Query terms that are None are left out."""
        return self.request("GET", path, params=_given(query))

    def post(self, path: str, body: Any = None) -> Any:
        """What a POST of this JSON answers, parsed."""
        return self.request("POST", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        """PUT; the answer's JSON."""
        return self.request("PUT", path, json=body)

    def delete(self, path: str) -> None:
        """DELETE."""
        self.request("DELETE", path)

    def upload(self, path: str, file: Path) -> Any:
        """PUT a file as it is, streamed; the answer's JSON. Raises as `request`."""
        self._renew_if_needed()

        def send() -> httpx.Response:
            with file.open("rb") as stream:
                headers = {"Content-Length": str(file.stat().st_size), "Content-Type": "application/octet-stream"}
                return self._once("PUT", path, headers=headers, content=stream)

        return self._answer(send)

    def request(self, method: str, path: str, **more: Any) -> Any:
        """Send a request, again while a service has yet to hear of what we know. Raises Problem and Unreachable."""
        return self._answer(lambda: self._send(method, path, **more))

    def _answer(self, send: Callable[[], httpx.Response]) -> Any:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            response = send()
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                break
            time.sleep(float(response.headers.get("retry-after", "1")))
        if not response.is_success:
            raise Problem.of(response)
        self._learn(response)
        return orjson.loads(response.content) if response.content else None

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        response = self._once(method, path, **more)
        if response.status_code == httpx.codes.UNAUTHORIZED and self._token and self._renewed():
            response = self._once(method, path, **more)
        return response

    def _once(self, method: str, path: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, headers=self._headers() | (headers or {}), **more)
        except httpx.TransportError as error:
            raise Unreachable(f"{self._http.base_url} gave no answer: {type(error).__name__}") from error

    def _renewed(self) -> bool:
        self._token = None
        response = self._http.post("/api/auth/refresh")
        if response.is_success:
            self._token = response.json()["access_token"]
        return self._token is not None

    def _headers(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if self._versions:
            headers["Flip-After"] = ", ".join(f"{stream}@{version}" for stream, version in self._versions.items())
        return headers

    def _learn(self, response: httpx.Response) -> None:
        for token in filter(None, response.headers.get("flip-version", "").split(", ")):
            stream, _, version = token.rpartition("@")
            self._versions.pop(stream, None)
            self._versions[stream] = int(version)
        for stream in list(self._versions)[:-_MOST_VERSIONS]:
            del self._versions[stream]

    def download(self, path: str, to: Path, **query: Any) -> Path:
        """Stream an answer into a file; into a folder under the name that the hub gives it.

        The file is there when it is whole. Raises Problem, and Unreachable where the answer was cut short.
        """
        with self._streaming(path, params=_given(query)) as response:
            target = to / _name_of(response) if to.is_dir() else to
            part = target.with_name(f".{target.name}.part")
            try:
                with part.open("wb") as file:
                    for piece in _pieces(response):
                        file.write(piece)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
        return target

    def pieces(self, path: str) -> Iterator[bytes]:
        """An answer as it comes. Raises Problem, and Unreachable where it was cut short."""
        with self._streaming(path) as response:
            yield from _pieces(response)

    def events(self, path: str, after: int) -> Iterator[dict[str, Any]]:
        """Server-sent events behind number `after` as they come, until the hub ends the stream.

        Each is its data with its name as `event` and its id as `number`. Raises Problem and httpx.TransportError.
        """
        fields: dict[str, str] = {}
        with self._streaming(path, {"Last-Event-ID": str(after)}, timeout=httpx.Timeout(60)) as response:
            for line in response.iter_lines():
                name, _, value = line.partition(":")
                fields[name] = value.strip()
                if name == "data":
                    yield {**orjson.loads(value), "event": fields["event"], "number": int(fields["id"])}

    def _renew_if_needed(self) -> None:
        """Renew a token that ran out, which a stream can't."""
        self.get("/api/auth/users/me")

    @contextmanager
    def _streaming(self, path: str, headers: dict[str, str] | None = None, **more: Any) -> Iterator[httpx.Response]:
        self._renew_if_needed()
        with self._http.stream("GET", path, headers=self._headers() | (headers or {}), **more) as response:
            if response.is_error:
                response.read()
                raise Problem.of(response)
            yield response


def _pieces(response: httpx.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_bytes(1 << 20)
    except httpx.TransportError as error:
        raise Unreachable(f"the answer was cut short: {type(error).__name__}; ask again") from error


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _name_of(response: httpx.Response) -> str:
    """The file's name from Content-Disposition, without any folder that it may claim."""
    _, _, name = response.headers.get("content-disposition", "").partition("filename*=UTF-8''")
    return Path(name).name or "download"
