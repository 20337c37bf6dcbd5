"""A real server in an environment of its own, started on a free port and killed by its pid."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def serving(line: Sequence[str], environment: Mapping[str, str], log: Path, seconds: float) -> Iterator[str]:
    """Start a server and give its address with /v1. ``line`` ends with the option that takes the port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/v1"
    with log.open("w") as out:
        server = subprocess.Popen([*line, str(port)], env=os.environ | environment, stdout=out, stderr=out)
    try:
        _wait_for(f"{address}/models", server, log, seconds)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    pytest.fail(f"the server is not up: {log.read_text()[-2000:]}")
