"""Named sets of model, form, limits and defaults, each value with its source.

Plain values: a profile is what a server serves when it is told one name. Settings may change
parts of it; nothing else may.
"""

from dataclasses import dataclass
from pathlib import Path

from llavachat_server.images.intake import ImageLimits
from llavachat_server.values import Quantization, Sampling

SHAPES_FOLDER = Path(__file__).parent / "models" / "shapes"


_IMAGE_LIMITS = ImageLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a server serves.

    Args:
        name: as it is told to clients; "custom" once the model was replaced by a setting.
        model: the hub's id of a checkpoint, or the folder it lies in.
        revision: the commit of the hub's repository, 40 hexadecimal digits; "" for a folder.
        quantization: the form of the language model's weights.
        default_sampling: of a request that names nothing.
        max_tokens: the longest answer that a request may ask for.
        max_prompt_chars: the longest question.
        max_images_per_turn: the most pictures in one turn.
        image_limits: the largest picture.
        max_running_turns: turns that are answered side by side.
        max_queued_turns: turns that may wait.
        max_turn_seconds: the longest that one turn may take, waiting included.
    """

    name: str
    model: str
    revision: str
    quantization: Quantization
    default_sampling: Sampling
    max_tokens: int
    max_prompt_chars: int = 16_384
    max_images_per_turn: int = 4
    image_limits: ImageLimits = _IMAGE_LIMITS
    max_running_turns: int
    max_queued_turns: int
    max_turn_seconds: float


_LLAVA_SAMPLING = Sampling(max_tokens=512, temperature=0.2, top_p=0.7)
"""Source: the defaults of LLaVA's own demo, ``llava/serve/gradio_web_server.py``: temperature
0.2, top_p 0.7, 512 new tokens, and at most 1,024."""

PROFILES = {
    profile.name: profile
    for profile in (
        # The embedded model: short answers about shapes, the same each time.
        Profile(
            name="shapes",
            model=str(SHAPES_FOLDER),
            revision="",
            quantization=Quantization.NONE,
            default_sampling=Sampling(max_tokens=128),
            max_tokens=1024,
            max_running_turns=16,
            max_queued_turns=64,
            max_turn_seconds=120.0,
        ),
        # Revision: the commit that public projects pin for this repository; the hub's `main`
        # when they wrote. int8 with its 7.7 GB leaves an A10G 24,000 tokens of context, by
        # arithmetic: 85 % of what is left of 22.06 GiB after the weights, 64 pictures' features
        # and 0.45 GiB assumed for CUDA, at 0.5 MiB a token.
        Profile(
            name="llava-1.5-7b",
            model="llava-hf/llava-1.5-7b-hf",
            revision="b234b804b114d9e37bb655e11cbbb5f5e971b7a9",
            quantization=Quantization.INT8,
            default_sampling=_LLAVA_SAMPLING,
            max_tokens=1024,
            max_running_turns=16,
            max_queued_turns=64,
            max_turn_seconds=300.0,
        ),
        # Likewise. nf4 with its 8 GB leaves it 15,000 tokens of context; int8 would leave 9,000.
        Profile(
            name="llava-1.5-13b",
            model="llava-hf/llava-1.5-13b-hf",
            revision="5dda2880bda009266dda7c4baff660b95ca64540",
            quantization=Quantization.NF4,
            default_sampling=_LLAVA_SAMPLING,
            max_tokens=1024,
            max_running_turns=8,
            max_queued_turns=64,
            max_turn_seconds=300.0,
        ),
    )
}

CUSTOM = Profile(
    name="custom",
    model="",
    revision="",
    quantization=Quantization.NONE,
    default_sampling=_LLAVA_SAMPLING,
    max_tokens=1024,
    max_running_turns=16,
    max_queued_turns=64,
    max_turn_seconds=300.0,
)
"""What holds for a checkpoint that no profile names."""
