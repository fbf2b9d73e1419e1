"""Ends with 0 if the server of this container lives: what its /livez says, see HEALTHCHECK.

It asks http://HOSTNAME:8101/livez, so `http: HOSTNAME:8101` has to stand in the cluster file; or
what RAFTD_LIVEZ says, which is an https: address where the file has `tls`.
"""

import os
import socket
import ssl
import sys
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 4.0
"""Below the one of the HEALTHCHECK, so that it is this that says what was wrong."""

url = os.environ.get("RAFTD_LIVEZ") or f"http://{socket.gethostname()}:8101/livez"
# It asks the server beside it: nobody is between them who could be taken for it.
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
direct = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
)
try:
    with direct.open(url, timeout=TIMEOUT_SECONDS) as answer:
        print(answer.status, answer.read(200).decode(errors="replace"))
except (urllib.error.URLError, OSError) as error:
    sys.exit(f"{url}: {error}")
