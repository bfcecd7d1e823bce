"""Settings: flags over ``LLAVACHAT_*`` over a TOML file over the profile.

Contract: a wrong value, an unknown flag and an unknown key of the file are refused in one
sentence that says the name, what was given, and what is allowed. It must not know the engine.
"""

import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from llavachat_server.flags import SettingsError, describe_numbers, flag_of, parse_flags, show
from llavachat_server.folders import (
    expand,
    find_keys_files,
    is_file,
    is_folder,
)
from llavachat_server.images.addresses import AllowedHosts
from llavachat_server.network import (
    check_address,
    check_http_address,
    is_loopback,
    read_networks,
)
from llavachat_server.ops.telemetry import TelemetryMissing, check_installed
from llavachat_server.settings_file import read_file
from llavachat_server.values import MAX_TURNS_PER_CHAT
from llavachat_server.variables import PREFIX

_WRONG_NUMBERS = re.compile(r"(int|float|number)_|(greater|less)_than|finite_number")
_REVISION = re.compile(r"[0-9a-f]{40}")


def _revision(value: str) -> str:
    if value and not _REVISION.fullmatch(value):
        raise ValueError("allowed: the 40 hexadecimal digits of a commit; branches move")
    return value


def _store(value: str) -> str:
    if value in ("memory", "sqlite") or re.match(r"postgres(ql)?://.", value):
        return value
    raise ValueError("allowed: memory, sqlite, or postgresql://USER:PASSWORD@HOST/NAME")


def _hosts(value: str) -> str:
    AllowedHosts.parse(value)
    return value


def _networks(value: str) -> str:
    read_networks(value)
    return value


def _existing_file(value: Path) -> Path:
    if not is_file(value):
        raise ValueError("allowed: the path of a file that exists and is not hidden from this user")
    return value


def _model(value: str) -> str:
    return str(expand(Path(value))) if value.startswith("~") else value


AnyPath = Annotated[Path, AfterValidator(expand)]
File = Annotated[AnyPath, AfterValidator(_existing_file)]
Profiles = Literal["shapes", "llava-1.5-7b", "llava-1.5-13b"]


class Settings(BaseSettings):
    """What an operator can set. Field names are the file's keys; flags have dashes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    listen: Annotated[str, AfterValidator(check_address)] = Field(
        "127.0.0.1:50051", description="HOST:PORT or unix:PATH to listen on; port 0: any free one"
    )
    profile: Profiles = Field(
        "shapes", description="what to serve; shapes is the small model that comes along"
    )
    model: Annotated[str, AfterValidator(_model)] = Field(
        "", description="another checkpoint: the hub's id (OWNER/NAME) or a folder"
    )
    revision: Annotated[str, AfterValidator(_revision)] = Field(
        "", description="the commit of the hub's repository, 40 hexadecimal digits"
    )
    quantization: Literal["none", "int8", "nf4"] | None = Field(
        None, description="the form of the language model's weights (default: the profile's)"
    )
    int8_threshold: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="with int8, multiply columns of activations over this magnitude in 16 bits and "
        "all others in 8, as LLM.int8() does with 6; 0: all in 8 bits, the quickest (default: all "
        "as exactly as in 16 bits)",
    )
    quantized_folder: AnyPath | None = Field(
        None,
        description="where quantised weights, and on a CPU those in the kernels' order, are kept "
        "for the next start (default: quantized in $CACHE_DIRECTORY, else in llavachat in the "
        "user's folder for caches)",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="what to compute on; auto takes a GPU where there is one"
    )
    compiled: Literal["auto", "on", "off"] = Field(
        "auto",
        description="decode on a CPU by kernels compiled for it; auto does so where the extra "
        "compiled is installed",
    )
    exact: bool = Field(
        False,
        description="compute one answer at a time and without what others left in the cache, so "
        "that a replay gives the same tokens in any company; slower",
    )
    cache_tokens: int | None = Field(
        None,
        ge=256,
        le=100_000_000,
        description="room for the keys and values of running turns and of what may be asked next "
        "(default: on a GPU what memory leaves, on a CPU 8192)",
    )
    max_running_turns: int | None = Field(
        None, ge=1, le=256, description="turns answered side by side (default: the profile's)"
    )
    max_queued_turns: int | None = Field(
        None, ge=0, le=10_000, description="turns that may wait (default: the profile's)"
    )
    max_turn_seconds: float | None = Field(
        None, gt=0, le=3600, description="the longest that a turn may take (default: the profile's)"
    )
    max_tokens: int | None = Field(
        None, ge=1, le=32_768, description="the longest answer (default: the profile's)"
    )
    max_image_bytes: int | None = Field(
        None, ge=1024, le=64 * 1024**2, description="the largest picture file (default: 10 MiB)"
    )
    max_image_cpu_seconds: int | None = Field(
        None, ge=1, le=8, description="computing to decode one picture (default: 2)"
    )
    max_images_per_turn: int | None = Field(
        None, ge=0, le=16, description="the most pictures in a turn (default: the profile's)"
    )
    image_url_hosts: Annotated[str, AfterValidator(_hosts)] = Field(
        "",
        description="hosts from which pictures are fetched by their https address, as in "
        '"pictures.example.org, *.example.net" (default: none)',
    )
    max_chats: int = Field(10_000, ge=1, description="chats kept in memory; more forget the oldest")
    max_picture_memory_bytes: int = Field(
        1024**3, ge=1024**2, description="memory for the pictures of kept chats"
    )
    keep_originals: bool = Field(
        False,
        description="keep pictures' files as they came, with all their metadata, beside the pixels",
    )
    max_turns_per_chat: int = Field(
        MAX_TURNS_PER_CHAT,
        ge=1,
        le=MAX_TURNS_PER_CHAT,
        description="turns of one chat, asked or imported",
    )
    max_import_bytes: int = Field(
        256 * 1024**2,
        ge=1024**2,
        description="words and decoded pictures of one imported chat together",
    )
    store: Annotated[str, AfterValidator(_store)] = Field(
        "sqlite",
        description="where chats are kept: memory, sqlite (a file in state_folder), or "
        "postgresql://USER:PASSWORD@HOST/NAME",
    )
    state_folder: AnyPath | None = Field(
        None,
        description="the folder of chats.db and of the audit record (default: $STATE_DIRECTORY, "
        "else llavachat in the user's folder for state)",
    )
    max_store_bytes: int | None = Field(
        None, ge=1024**2, description="the most that chats.db may take (default: the disk's room)"
    )
    audit: Literal["off", "hashes", "content"] | None = Field(
        None,
        description="a record of every turn, with hashes of what was said or the words themselves, "
        "which stay in it when their chat is erased (default: hashes; off with store memory)",
    )
    abandon_grace_seconds: float = Field(
        3.0, ge=0, le=3600, description="how long a turn goes on whose reader is gone"
    )
    max_chat_age_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="chats that were not used for so long are erased, up to a hundred years "
        "(default: none)",
    )
    max_chats_bytes: int | None = Field(
        None,
        ge=1024**2,
        description="when chats and their pictures take more, those that were used longest ago are "
        "erased (default: none; with store memory see max_chats)",
    )
    keys_file: File | None = Field(
        None,
        description="keys as lines of NAME SHA256-OF-KEY, besides those that `llavachat-server "
        "keys add` keeps in state_folder; without any, everybody may call",
    )
    max_spoilt_calls_per_second: int = Field(
        20,
        ge=1,
        le=1_000_000,
        description="calls of one connection without a readable request or a known key; twice as "
        "many of one address; who goes on is sent away",
    )
    flood_block_seconds: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="for how long after the last an address that sends too many of those can not "
        "connect; 0: it always can",
    )
    flood_exempt: Annotated[str, AfterValidator(_networks)] = Field(
        "127.0.0.1, ::1",
        description="addresses and networks that are never sent away, as those of proxies, which "
        "stand for many callers",
    )
    tls_cert_file: File | None = Field(None, description="PEM of the server's certificate chain")
    tls_key_file: File | None = Field(None, description="PEM of the certificate's private key")
    tls_client_ca_file: File | None = Field(
        None, description="PEM of the authority whose client certificates are demanded"
    )
    allow_open_network: bool = Field(
        False, description="listen beyond this machine without TLS or without keys"
    )
    metrics_listen: Annotated[str, AfterValidator(check_http_address)] = Field(
        "",
        description="HOST:PORT to answer Prometheus on, as in 127.0.0.1:9464; needs the extra otel "
        "(default: none)",
    )
    reflection: bool = Field(False, description="answer gRPC reflection")
    grace_seconds: float = Field(
        30.0, ge=0, le=3600, description="time for running turns when the server stops"
    )
    log_format: Literal["auto", "text", "json", "journal"] = Field(
        "auto",
        description="auto: text on a terminal, entries with fields in systemd's journal, else "
        "JSON lines",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="the least that is logged; taken up anew at a SIGHUP"
    )
    ready_file: AnyPath | None = Field(
        None, description="written with the bound address once the server serves; removed till then"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Python takes true for 1, and so does pydantic.
        field = cls.model_fields[info.field_name or ""]
        kinds = {field.annotation, *get_args(field.annotation)}
        if isinstance(value, bool) and kinds & {int, float}:
            raise PydanticCustomError("number_type", "no number")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> "Settings":
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file: give both or none")
        if self.tls_client_ca_file and not self.tls_cert_file:
            raise ValueError("tls_client_ca_file needs tls_cert_file and tls_key_file")
        if self.revision and is_folder(Path(self.model)):
            raise ValueError("revision: a folder has none; it is for a hub's id")
        return self


def load(arguments: Sequence[str]) -> Settings:
    """The settings to serve by: they are read, and a server may be what they say.

    Args:
        arguments: see `read`.

    Raises:
        SettingsError: something is wrong; the message says what would be right.
    """
    settings = read(arguments)
    check_network(settings)
    check_extras(settings)
    return settings


def read(arguments: Sequence[str]) -> Settings:
    """Read flags, environment and file.

    Enough for who looks for a folder of the server: who makes its first key is asked for none.

    Args:
        arguments: the command line without the program's name. ``--help`` and ``--version``
            print and exit.

    Raises:
        SettingsError: something is wrong; the message says what would be right.
    """
    flags = parse_flags(arguments, Settings.model_fields, PREFIX)
    given = flags.pop("config", None) or os.environ.get(f"{PREFIX}CONFIG")
    config = expand(Path(given)) if given else None
    if config is not None and not is_file(config):
        raise SettingsError(f"config: {str(config)!r} given; allowed: a TOML file that exists")

    in_file = {} if config is None else read_file(config, [*Settings.model_fields])

    class Sourced(Settings):
        """The same settings, with this run's file."""

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            """Flags, then the environment, then the file."""
            return (
                init_settings,
                env_settings,
                InitSettingsSource(settings_cls, in_file),
            )

    try:
        return Sourced(**flags)
    except ValidationError as error:
        raise SettingsError(_sentence(error, flags, config)) from error


def find_audit_mode(settings: Settings) -> str:
    """What the audit record holds; "off" where there is none."""
    return settings.audit or ("off" if settings.store == "memory" else "hashes")


def check_network(settings: Settings) -> None:
    """Refuse to be open to a network by accident.

    Raises:
        SettingsError: an address is not this machine's own, and TLS or keys are missing.
    """
    if settings.allow_open_network:
        return
    missing = [] if settings.tls_cert_file is not None else ["tls_cert_file"]
    if not any(is_file(path) for path in find_keys_files(settings)):
        missing.append("keys_file")
    for name in ("listen", "metrics_listen"):
        address = getattr(settings, name)
        if missing and address and not is_loopback(address):
            raise SettingsError(
                f"{name}: {address!r} can be reached from other machines and needs "
                f"{' and '.join(missing)}; or listen on 127.0.0.1, or set allow_open_network"
            )


def check_extras(settings: Settings) -> None:
    """Refuse what needs a library that is not installed.

    Raises:
        SettingsError: says what to install.
    """
    if settings.compiled == "on" and find_spec("numba") is None:
        raise SettingsError(
            "compiled: needs numba; "
            "in a checkout: pip install -c constraints.txt '.[server,compiled]'"
        )
    if settings.metrics_listen:
        try:
            check_installed("metrics_listen")
        except TelemetryMissing as error:
            raise SettingsError(str(error)) from error


def _sentence(error: ValidationError, flags: dict[str, Any], config: Path | None) -> str:
    """The first thing that is wrong, in one sentence."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return message
    name = str(first["loc"][0])
    variable = f"{PREFIX}{name.upper()}"
    # However it is spelt: pydantic reads a variable in any case.
    given = next((each for each in os.environ if each.upper() == variable), None)
    if name in flags:
        origin = flag_of(name)
    elif given is not None:
        origin = given
    else:
        origin = f"{name} in {str(config)!r}"
    if _WRONG_NUMBERS.match(first["type"]):
        allowed = describe_numbers(name, Settings.model_fields[name])
    elif first["type"].startswith("bool_"):
        allowed = "true or false"
    elif first["type"] in ("string_type", "path_type"):
        allowed = "text, in quotes"
    else:
        allowed = re.sub(r"^(Input should be( a valid)?|allowed:) ?", "", message)
    return f"{origin}: {show(first['input'])} given; allowed: {allowed}"
