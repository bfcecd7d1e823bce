"""A loaded model with all that stands around it, as the engine sees it.

Slow calls for a worker thread, and generation loops for the asking. Who computes is behind it:
`native.backend` without torch, `tensors.backend` with it; `opening` says which. It knows no asyncio
and no requests.
"""

import importlib.metadata
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image

from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.budget import GapBudget
from llavachat_server.engine.batching.core import Core
from llavachat_server.engine.batching.exact import ExactScheduler
from llavachat_server.engine.batching.scheduler import Scheduler
from llavachat_server.engine.checkpoint import Checkpoint, CheckpointFacts, LoadingError
from llavachat_server.engine.detokenise import TokenTable
from llavachat_server.engine.gate import Gate
from llavachat_server.engine.loop import Deliver, GenerationLoop
from llavachat_server.engine.placement import Placement, count_exact_tokens
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.virtual_ids import VirtualIds
from llavachat_server.values import EngineInfo, ModelInfo, Quantization

ANSWER_LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "bitsandbytes",
    "pillow",
    "numpy",
    "numba",
)
"""Distributions whose version can change an answer."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A checkpoint whose weights are in memory."""

    checkpoint: Checkpoint
    facts: CheckpointFacts
    placement: Placement
    weights_sha256: str


class Backend(ABC):
    """A model in memory; belongs to one worker thread.

    Args:
        settings: how it was loaded.
        loaded: what was.

    Raises:
        LoadingError: its tokenizer does not fit.
    """

    def __init__(self, settings: EngineSettings, loaded: Loaded) -> None:
        self.settings = settings
        self.loaded = loaded
        self.ids = VirtualIds(loaded.facts.vocab_size)
        self._core: Core | None = None
        # What steps take, a loop that is begun anew does not have to learn: a first prompt in one
        # step would look like a hang where the model is large and the processor slow.
        self._budget: GapBudget | None = None
        try:
            self.table = TokenTable(loaded.facts.tokenizer)
        except ValueError as error:
            raise LoadingError(str(error)) from error

    @property
    @abstractmethod
    def device_name(self) -> str:
        """What computes, in words."""

    @property
    @abstractmethod
    def is_compiled(self) -> bool:
        """Whether the kernels compute."""

    @abstractmethod
    def make_core(self) -> Core:
        """A core with an empty cache.

        Raises:
            MemoryError: the cache does not fit.
        """

    @abstractmethod
    def prepare_thread(self) -> None:
        """Called first on the generation loop's thread."""

    @abstractmethod
    def fill_slot(self, slot: int, picture: Image.Image) -> None:
        """Encode an RGB picture and put its features into the bank."""

    def make_loop(self, deliver: Deliver, on_end: Callable[[], None]) -> GenerationLoop:
        """A loop that runs, with an empty cache.

        Raises:
            LoadingError: the cache does not fit.
        """
        try:
            core = self.make_core()
        except MemoryError as error:
            raise LoadingError(
                "the key-value cache does not fit into memory; "
                "lower cache_tokens or max_running_turns"
            ) from error
        self._core = core
        loop = GenerationLoop(core, self.prepare_thread, deliver, on_end)
        loop.start()
        return loop

    def settle(self, stopping: threading.Event) -> None:  # noqa: B027
        """Do what a start is not to wait for; on a thread of its own, once it serves.

        Args:
            stopping: ends it soon.
        """

    def describe_steps(self) -> dict[str, Any]:
        """How steps are computed, for who measures them; see `tensors.way.Way`."""
        return {}

    def is_idle(self) -> bool:
        """Whether the generation loop computes nothing; from any thread."""
        return self._core is None or not self._core.has_work

    def make_scheduler(self, pool: BlockPool) -> Scheduler:
        """The scheduler that the settings ask for, over a cache's books."""
        settings, placement = self.settings, self.loaded.placement
        if settings.exact:
            num_weights = self.loaded.facts.config.text_config.num_layer_weights
            chunk_tokens = count_exact_tokens(placement, num_weights)
            return ExactScheduler(pool, chunk_tokens, settings.max_running)
        if self._budget is None:
            self._budget = GapBudget(placement.gap_seconds, placement.max_batch_tokens)
        return Scheduler(pool, self._budget, settings.max_running)

    def describe(self, request_capacity_tokens: int) -> EngineInfo:
        """What callers must know; the context is bounded by what one cache can hold."""
        loaded, facts, settings = self.loaded, self.loaded.facts, self.settings
        compiled = ("compiled",) if self.is_compiled else ()
        activations = _describe_activations(settings)
        exact = ("exact",) if settings.exact else ()
        return EngineInfo(
            model=ModelInfo(
                profile=settings.profile,
                name=loaded.checkpoint.name,
                revision=loaded.checkpoint.revision,
                quantization=settings.quantization,
                weights_sha256=loaded.weights_sha256,
            ),
            # Told with every turn, so that a replay knows what it compares.
            device=", ".join((self.device_name, *compiled, *activations, *exact)),
            context_tokens=min(facts.context_tokens, request_capacity_tokens),
            max_tokens=settings.max_tokens,
            num_image_tokens=facts.num_image_tokens,
            vocab_size=facts.vocab_size,
            image_token_id=facts.prompts.special.image,
            max_running=settings.max_running,
            max_queued=settings.max_queued,
            library_versions=list_library_versions(),
        )

    def build_gate(self, info: EngineInfo) -> Gate:
        """The limits that requests are held to."""
        return Gate(
            context_tokens=info.context_tokens,
            num_image_tokens=info.num_image_tokens,
            max_images=self.settings.num_bank_images,
            max_tokens=info.max_tokens,
            vocab_size=info.vocab_size,
            special=self.loaded.facts.prompts.special,
            silent_ids=frozenset(self.loaded.facts.silent_ids),
        )


def _describe_activations(settings: EngineSettings) -> tuple[str, ...]:
    threshold = settings.int8_threshold
    if settings.quantization is not Quantization.INT8 or threshold is None:
        return ()
    return (f"outliers over {threshold:g}" if threshold else "8-bit activations",)


def list_library_versions() -> dict[str, str]:
    """Versions of the installed libraries that shape an answer."""
    versions = {}
    for name in ANSWER_LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
