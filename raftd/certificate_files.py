"""Where certificates are and for how long they hold, for those who need nothing else of TLS."""

from __future__ import annotations

from pathlib import Path

import attrs

EXPIRY_WARNING_DAYS = 30
"""A certificate that ends within so many days is reported: enough to have a new one made."""
DAY_MS = 86_400_000


@attrs.frozen(kw_only=True)
class TlsFiles:
    """Files in PEM form."""

    ca: Path
    """One certificate or several: those that are not signed by one of them are refused."""
    cert: Path
    """The own certificate, and behind it those that lead from it to the CA."""
    key: Path
    """The private key of the first one, not encrypted."""


def days_left(expires_ms: int, now_ms: int) -> int:
    """Return for how many whole days a certificate is still valid; negative once it is not."""
    return (expires_ms - now_ms) // DAY_MS
