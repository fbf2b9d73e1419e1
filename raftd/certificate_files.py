"""Where certificates are, for those who only name them: nothing of TLS is loaded with this."""

from __future__ import annotations

from pathlib import Path

import attrs


@attrs.frozen(kw_only=True)
class TlsFiles:
    """Files in PEM form."""

    ca: Path
    """One certificate or several: those that are not signed by one of them are refused."""
    cert: Path
    """The own certificate, and behind it those that lead from it to the CA."""
    key: Path
    """The private key of the first one, not encrypted."""
