"""The served page: read-only, fresh, one address."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from threading import Thread

import pytest

from results.errors import StoreError
from results.serve import HOST, Pages, server


class Drawn:
    """A store's state, and how often its page was drawn."""

    def __init__(self) -> None:
        self.state, self.times, self.error = "one", 0, ""

    def draw(self) -> str:
        self.times += 1
        if self.error:
            raise StoreError(self.error)
        return f"<!doctype html><p>{self.state}</p>"


@pytest.fixture
def drawn() -> Drawn:
    return Drawn()


@pytest.fixture
def port(drawn: Drawn) -> Iterator[int]:
    served = server(Pages(lambda: drawn.state, drawn.draw), 0)
    thread = Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served.server_address[1]
    served.shutdown()
    thread.join()
    served.server_close()


def ask(port: int, method: str = "GET", path: str = "/", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def test_the_page_is_drawn_once_until_the_store_changes(port: int, drawn: Drawn) -> None:
    status, headers, body = ask(port)
    assert (status, body) == (200, b"<!doctype html><p>one</p>")
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert ask(port, If_None_Match=headers["ETag"])[0] == 304
    assert drawn.times == 1
    drawn.state = "two"
    status, newer, body = ask(port, If_None_Match=headers["ETag"])
    assert (status, body, drawn.times) == (200, b"<!doctype html><p>two</p>", 2)
    assert newer["ETag"] != headers["ETag"]


def test_head_has_the_headers_alone(port: int, drawn: Drawn) -> None:
    status, headers, body = ask(port, "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(drawn.draw())


def test_nothing_frames_sniffs_or_keeps_it(port: int, drawn: Drawn) -> None:
    headers = ask(port)[1]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-cache"
    assert "Python" not in headers["Server"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_can_be_changed(port: int, drawn: Drawn, method: str) -> None:
    assert ask(port, method)[0] == 501
    assert drawn.times == 0


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/etc/passwd", "//etc/passwd", "/records/x.json", "/x"])
def test_there_is_one_path(port: int, drawn: Drawn, path: str) -> None:
    status, _, body = ask(port, "GET", path)
    assert (status, drawn.times) == (404, 0)
    assert b"root:" not in body


def test_a_page_elsewhere_that_points_here_gets_nothing(port: int, drawn: Drawn) -> None:
    assert ask(port, Host="evil.example")[0] == 403
    assert ask(port, Host=f"localhost:{port}")[0] == 200
    assert ask(port, Host="[")[0] in (400, 403)


def test_a_store_that_cannot_be_read_says_why_and_recovers(port: int, drawn: Drawn) -> None:
    drawn.error = "records/a.json: no JSON"
    status, headers, body = ask(port)
    assert (status, body) == (500, b"error: records/a.json: no JSON\n")
    assert headers["Content-Type"].startswith("text/plain")
    drawn.error = ""
    assert ask(port)[0] == 200


def test_a_port_that_is_taken_is_a_clear_line(port: int) -> None:
    for taken, why in ((port, "Address already in use"), (70_000, "a port is 0 to 65535")):
        with pytest.raises(StoreError, match=f"--port {taken}: {why}; choose another"):
            server(Pages(str, str), taken)
