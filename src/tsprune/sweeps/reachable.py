"""Whether a Ray cluster answers at an address, before Ray itself waits for it for minutes."""

from __future__ import annotations

import socket
import threading

SECONDS = 3.0  # to connect, and to answer
_PATIENCE = 8.0  # for everything, including the lookup of names

# HTTP/2, which Ray's servers talk: a client's preface with an empty SETTINGS frame, and the type of the frame
# that every server begins with (RFC 9113, sections 3.4 and 6.5)
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4


def problem_at(address: str) -> str | None:
    """Why no Ray cluster can be at "host:port" or "ray://host:port"; None if one may be.

    Addresses of any other form are left to Ray, which refuses them at once.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not host or not port.isdecimal() or "://" in host:
        return None
    if not 0 < int(port[:6]) < 2**16:
        return f"{port[:20]} is no port"
    found = ["nobody answers in time"]

    def ask() -> None:
        found[0] = _answer(host.strip("[]"), int(port))

    asking = threading.Thread(target=ask, daemon=True)  # the lookup of a name has no time limit
    asking.start()
    asking.join(_PATIENCE)
    return found[0] or None


def _answer(host: str, port: int) -> str:
    """The problem found there; "" if none."""
    try:
        with socket.create_connection((host, port), timeout=SECONDS) as connection:
            connection.sendall(_PREFACE)
            header = connection.recv(9)
    except (OSError, UnicodeError) as error:  # an invalid name is a UnicodeError
        return getattr(error, "strerror", None) or str(error)
    return "" if len(header) == 9 and header[3] == _SETTINGS else "what listens there is not Ray"
