"""A port to serve at, or a message that says why there is none."""

from __future__ import annotations

import socket

from pipeline.errors import UserError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError where the port is taken or the host is none here."""
    door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit it. uvicorn takes the socket for a local one and would not set it, and a
    # small answer would wait 40 ms for the client's acknowledgement.
    door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        door.bind((host, port))
        door.listen(BACKLOG)
    except OSError as error:
        door.close()
        raise UserError(f"{host}:{port}: {error.strerror}; --port gives another") from None
    return door
