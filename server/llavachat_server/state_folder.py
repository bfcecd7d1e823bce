"""The state folder, made before anything is served."""

import errno
from tempfile import TemporaryFile

from llavachat_server.flags import SettingsError
from llavachat_server.folders import find_state_folder
from llavachat_server.settings import Settings, find_audit_mode

_WRONG_PLACE = frozenset(
    (
        errno.EACCES,
        errno.EEXIST,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EPERM,
    )
)
"""What the system says of a place where there can be no folder of ours, today or tomorrow."""


def make_state_folder(settings: Settings) -> None:
    """Make the state folder, where one is needed.

    Raises:
        SettingsError: it can not be, which no second try would change.
    """
    if settings.store != "sqlite" and find_audit_mode(settings) == "off":
        return
    folder = find_state_folder(settings)
    try:
        if any(place.is_symlink() and not place.exists() for place in (folder, *folder.parents)):
            # A volume that is not mounted yet; told by who opens the store.
            return
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # To be told why not: a disk that can only be read for now is another trouble.
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno not in _WRONG_PLACE:
            # As a full disk, or one that can only be read; likewise.
            return
        raise SettingsError(
            f"state_folder: {str(folder)!r} given; allowed: a folder that this user may make and "
            f"write in ({error.strerror})"
        ) from error
