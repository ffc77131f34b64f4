"""Check that a port is free before another program is started that would serve at it."""

from __future__ import annotations

import os
import socket

from act2see.errors import ConfigError


def check_port(host: str, port: int, advice: str = "") -> None:
    """Check that a server can listen at an address.

    Args:
        host: The address to listen on.
        port: The port.
        advice: What else must be changed with the port, for the message.

    Raises:
        ConfigError: The port is taken, or the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as e:
        number = getattr(e, "errno", None)
        why = (
            os.strerror(number) if number and number > 0 else str(e)
        )  # Python adds the address to `strerror`
        raise ConfigError(
            f"cannot listen on {host}, port {port} ({why}): stop the program that uses it, or choose another "
            f"port with --port{advice}"
        ) from e
