"""``llavachat-server [serve] [--SETTING VALUE ...]``: the server itself.

Exit codes: 0 stopped as asked, 1 could not start or go on, 2 wrong settings, 130 interrupted twice.
An interrupt before `app` listens for it ends the process by that signal: a shell says 130 too.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.packed_copy import begin_fingerprint
from llavachat_server.engine.shelf import Shelf
from llavachat_server.flags import SettingsError
from llavachat_server.folders import find_quantized_folder
from llavachat_server.images.worker import begin_workers
from llavachat_server.ops import logs
from llavachat_server.profiles import Profile
from llavachat_server.resolution import resolve_profile
from llavachat_server.settings import Settings, load
from llavachat_server.settling import begin_start, end_start
from llavachat_server.state_folder import make_state_folder
from llavachat_server.values import Quantization
from llavachat_server.variables import find_unknown_variables


def run(words: Sequence[str]) -> int:
    """Run the server until it is told to stop, and end the process.

    Args:
        words: the command line; "serve" may come first.

    Returns:
        The exit code, where the server did not come to serve. Else the process ends here.
    """
    try:
        settings = load(words)
        profile = resolve_profile(settings)
        make_state_folder(settings)
    except SettingsError as error:
        print(f"llavachat-server: {error}", file=sys.stderr)  # noqa: T201
        return 2
    logs.set_up(settings.log_format, settings.log_level)
    _tell_unknown_variables()
    begin_start()
    # After the settings, so that a typing error is told at once. What needs no module of ours is
    # begun before they are imported, on the other core.
    workers, fingerprint = begin_workers(), _begin_fingerprint(settings, profile)
    from llavachat_server.app import App
    from llavachat_server.assembly import make_batching_engine
    from llavachat_server.endings import EngineEnded, StartError, StoreLost

    async def serve() -> None:
        app = App(
            settings,
            profile,
            make_engine=partial(make_batching_engine, fingerprint=fingerprint),
            read_settings=lambda: load(words),
            workers=workers,
        )
        app.serving.add_done_callback(lambda _: end_start())
        await app.run()

    try:
        asyncio.run(serve())
    except (StartError, EngineEnded, StoreLost) as error:
        print(f"llavachat-server: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except Exception:
        logging.getLogger("llavachat").exception("the server failed")
        return 1
    # All is closed and kept. Taking the model's libraries down piece by piece would only make
    # who waits for the end wait for seconds more.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _tell_unknown_variables() -> None:
    """Not refused: other programs may have variables of our prefix."""
    for variable, near in find_unknown_variables([*Settings.model_fields]).items():
        fields = {"variable": variable, "did_you_mean": near}
        logging.getLogger("llavachat").warning("a variable is no setting", extra={"fields": fields})


def _begin_fingerprint(settings: Settings, profile: Profile) -> Fingerprint | None:
    # Of quantised weights the engine knows whether there is a copy.
    folder = Path(profile.model).expanduser()
    is_read = profile.quantization is Quantization.NONE and folder.is_dir()
    return begin_fingerprint(folder, Shelf(find_quantized_folder(settings))) if is_read else None
