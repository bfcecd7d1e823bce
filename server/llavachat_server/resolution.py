"""What is to be served: a profile, with what the settings change of it."""

from dataclasses import replace
from pathlib import Path

from llavachat_server.flags import SettingsError, show
from llavachat_server.folders import is_folder
from llavachat_server.profiles import CUSTOM, PROFILES, Profile
from llavachat_server.settings import Settings
from llavachat_server.values import HUB_ID, Quantization


def resolve_profile(settings: Settings) -> Profile:
    """The profile, with what the settings change of it.

    Raises:
        SettingsError: the model can not be found so, or is not pinned.
    """
    base = PROFILES[settings.profile]
    if settings.model and settings.model != base.model:
        if "profile" not in settings.model_fields_set:
            base = CUSTOM
        base = replace(base, name="custom", model=settings.model, revision="")
    if settings.revision:
        base = replace(base, revision=settings.revision)
    if settings.quantization is not None:
        base = replace(base, quantization=Quantization(settings.quantization))
    is_local = is_folder(Path(base.model))
    if not is_local and not HUB_ID.fullmatch(base.model):
        raise SettingsError(
            f"model: {show(base.model)} given; allowed: a folder that exists, or a hub's id "
            "OWNER/NAME"
        )
    if not is_local and not base.revision:
        raise SettingsError(
            f"model: {base.model!r} is a hub's id and needs --revision with the 40 hexadecimal "
            "digits of a commit, so that every start loads the same weights"
        )
    if is_local and base.revision:
        raise SettingsError("revision: a folder has none; it goes with a hub's id")
    image_limits = base.image_limits
    if settings.max_image_bytes is not None:
        image_limits = replace(image_limits, max_bytes=settings.max_image_bytes)
    if settings.max_image_cpu_seconds is not None:
        image_limits = replace(image_limits, max_cpu_seconds=settings.max_image_cpu_seconds)
    changed = {
        name: getattr(settings, name)
        for name in (
            "max_running_turns",
            "max_queued_turns",
            "max_turn_seconds",
            "max_tokens",
            "max_images_per_turn",
        )
        if getattr(settings, name) is not None
    }
    profile = replace(base, image_limits=image_limits, **changed)
    sampling = profile.default_sampling
    if sampling.max_tokens > profile.max_tokens:
        sampling = replace(sampling, max_tokens=profile.max_tokens)
    return replace(profile, default_sampling=sampling)
