"""Variables of the environment that look like settings and are none.

It knows settings by their names alone.
"""

import os
from collections.abc import Sequence

from llavachat_server.flags import find_near

PREFIX = "LLAVACHAT_"

_OTHER_VARIABLES = frozenset(
    PREFIX + name
    for name in (
        "ADDRESS",
        "ALLOW_INSECURE",
        "API_KEY",
        "CDK_PYTHON",
        "CHECKOUT",
        "CONFIG",
        "SERVER",
        "STATE_DIR",
        "TIMEOUT_SECONDS",
        "TLS",
        "TLS_CA_FILE",
        "TLS_CLIENT_CERT_FILE",
        "TLS_CLIENT_KEY_FILE",
        "TLS_PIN",
        "TLS_SERVER_NAME",
    )
)
"""Variables that are no settings, and mean something all the same: the client's, but for CONFIG."""


def find_unknown_variables(names: Sequence[str]) -> dict[str, str]:
    """Variables of our prefix that nobody reads, as after a slip.

    Args:
        names: of all settings.

    Returns:
        By each the variable that it is near to, "" for none.
    """
    found = {}
    for variable in sorted(os.environ):
        # However it is spelt: pydantic reads a variable in any case.
        name = variable.upper()
        if not name.startswith(PREFIX) or name in _OTHER_VARIABLES:
            continue
        setting = name.removeprefix(PREFIX).lower()
        if setting not in names:
            near = find_near(setting, names)
            found[variable] = near and f"{PREFIX}{near.upper()}"
    return found
