"""A receiver of webhooks: what comes is kept, and answered as the test says."""

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from openai import OpenAI


class Came(NamedTuple):
    """A request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def unwrapped(self, secret: str) -> object:
        """By the official client, as a receiver does it."""
        return OpenAI(api_key="none", webhook_secret=secret).webhooks.unwrap(self.body, self.headers)


class Receiver:
    """Listens on this machine.

    Attributes:
        came: All requests, the first one first.
        statuses: With which the next ones are answered; 200 where there is none.
        silent: The path on which the answer trickles and never ends.
        ended: Ends such answers.
    """

    silent = "/silent"

    def __init__(self) -> None:
        self.came: list[Came] = []
        self.statuses: list[int] = []
        self.ended = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.came.append(Came(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                if self.path == receiver.silent:
                    # Never so slow that a wait for the next byte ends.
                    with contextlib.suppress(OSError):
                        self.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
                        while not receiver.ended.wait(0.05):
                            self.wfile.write(b".")
                    return
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
                # Followed only if the answer is a redirect, and redirects are followed.
                self.send_header("location", receiver.url("/elsewhere"))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def at(self, path: str) -> list[Came]:
        return [each for each in self.came if each.path == path]

    def close(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()
