"""The parts of a server that are made from settings: its engine, what fetches pictures, and the
desk at which callers are served. Nothing here starts or stops anything; `app` does.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from llavachat.v1 import chat_pb2 as pb

from llavachat_server import __version__
from llavachat_server.chats.importer import Importer
from llavachat_server.chats.store import ChatStore
from llavachat_server.chats.turns import Turns
from llavachat_server.engine import native
from llavachat_server.engine.engine import BatchingEngine
from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.folders import find_quantized_folder, find_state_folder
from llavachat_server.images.addresses import AllowedHosts
from llavachat_server.interfaces import Engine
from llavachat_server.profiles import Profile
from llavachat_server.rpc import messages
from llavachat_server.rpc.imported_chat import ChatLimits
from llavachat_server.rpc.requests import RequestLimits
from llavachat_server.rpc.service import Desk
from llavachat_server.settings import Settings
from llavachat_server.values import (
    EngineInfo,
)

if TYPE_CHECKING:
    from llavachat_server.images.fetcher import Fetcher


class ServedEngine(Engine, Protocol):
    """An engine that says when the process should end.

    `fatal`, from `start` on: done, with a sentence for the log, when it can not go on.
    """

    fatal: asyncio.Future[str] | None


EngineMaker = Callable[[Settings, Profile, Callable[[str, float | None], None]], ServedEngine]


def make_batching_engine(
    settings: Settings,
    profile: Profile,
    progress: Callable[[str, float | None], None],
    fingerprint: Fingerprint | None = None,
) -> BatchingEngine:
    """Make the engine of a profile, not started yet."""
    return BatchingEngine(
        EngineSettings(
            model=profile.model,
            profile=profile.name,
            revision=profile.revision or None,
            quantization=profile.quantization,
            int8_threshold=settings.int8_threshold,
            quantized_folder=str(find_quantized_folder(settings)),
            compile_steps={"auto": native.is_installed(), "on": True, "off": False}[
                settings.compiled
            ],
            compiled_folder=str(find_quantized_folder(settings).with_name("compiled")),
            device=settings.device,
            exact=settings.exact,
            max_running=profile.max_running_turns,
            max_queued=profile.max_queued_turns,
            max_tokens=profile.max_tokens,
            kv_cache_tokens=settings.cache_tokens,
            hashes_folder=str(find_state_folder(settings) / "models"),
        ),
        progress,
        fingerprint,
    )


def make_fetcher(hosts: AllowedHosts) -> "Fetcher | None":
    """Make what fetches pictures by their addresses; None where it may ask no host."""
    if not hosts:
        return None
    # Its library takes time to import, and few servers need it.
    from llavachat_server.images.fetcher import Fetcher

    return Fetcher(hosts)


@dataclass(frozen=True, slots=True)
class Chats:
    """What keeps and continues chats."""

    turns: Turns
    store: ChatStore
    importer: Importer


def make_desk(
    settings: Settings,
    profile: Profile,
    info: EngineInfo,
    chats: Chats,
    *,
    takes_urls: bool,
    media_types: Sequence[str],
    started_at: datetime,
) -> Desk:
    """Make what callers are served with.

    Args:
        settings, profile: how to serve, and what.
        info: of the engine that has started.
        chats: what keeps and continues them.
        takes_urls: whether pictures may be given by address.
        media_types: of the pictures that can be read.
        started_at: when this process began.
    """
    request_limits = RequestLimits(
        max_prompt_chars=profile.max_prompt_chars,
        max_images_per_turn=profile.max_images_per_turn,
        max_tokens=profile.max_tokens,
        vocab_size=info.vocab_size,
        takes_urls=takes_urls,
    )
    chat_limits = ChatLimits(
        request_limits, settings.max_turns_per_chat, profile.image_limits.max_side_pixels
    )
    return Desk(
        info,
        chats.turns,
        chats.store,
        chats.importer,
        request_limits,
        chat_limits,
        _describe_server(
            profile, info, media_types, started_at, keeps_originals=settings.keep_originals
        ),
        ends_with_chats=settings.store == "memory",
    )


def _describe_server(
    profile: Profile,
    info: EngineInfo,
    media_types: Sequence[str],
    started_at: datetime,
    *,
    keeps_originals: bool,
) -> pb.GetServerInfoResponse:
    return pb.GetServerInfoResponse(
        model=messages.model_info(info.model),
        limits=pb.Limits(
            max_image_bytes=profile.image_limits.max_bytes,
            max_image_pixels=profile.image_limits.max_pixels,
            max_image_side_pixels=profile.image_limits.max_side_pixels,
            max_images_per_turn=profile.max_images_per_turn,
            max_prompt_chars=profile.max_prompt_chars,
            context_tokens=info.context_tokens,
            max_tokens=profile.max_tokens,
            tokens_per_image=info.num_image_tokens,
            max_running_turns=info.max_running,
            max_queued_turns=info.max_queued,
            max_turn_duration=messages.duration(profile.max_turn_seconds),
            media_types=media_types,
        ),
        default_params=messages.params(profile.default_sampling),
        server_version=__version__,
        library_versions=info.library_versions,
        device=info.device,
        start_time=messages.timestamp(started_at),
        keeps_originals=keeps_originals,
    )
