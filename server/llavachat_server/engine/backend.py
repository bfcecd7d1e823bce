"""The loaded model with all that stands around it on the device.

Torch's side of the engine: slow calls for a worker thread, and generation loops for the asking.
It knows no asyncio and no requests.
"""

from collections.abc import Callable

import torch
from PIL import Image

from llavachat_server.engine import native
from llavachat_server.engine.batching.cache import (
    count_free_bytes,
    count_token_bytes,
    make_cache,
    size_cache,
)
from llavachat_server.engine.batching.core import Core
from llavachat_server.engine.batching.exact import ExactScheduler
from llavachat_server.engine.batching.graphs import DecodeGraphs
from llavachat_server.engine.batching.paged import PagedAttention
from llavachat_server.engine.batching.runner import Decoder, Runner
from llavachat_server.engine.batching.scheduler import GapBudget, Scheduler
from llavachat_server.engine.checkpoint import LoadingError
from llavachat_server.engine.detokenise import TokenTable
from llavachat_server.engine.embedding import VirtualEmbedding
from llavachat_server.engine.gate import Gate
from llavachat_server.engine.llava.weights import copy_out
from llavachat_server.engine.loading import (
    LoadedModel,
    Progress,
    list_library_versions,
    load_model,
)
from llavachat_server.engine.loop import Deliver, GenerationLoop
from llavachat_server.engine.native.apart import compile_apart
from llavachat_server.engine.sampling import SeenTokens
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.vision import VisionEncoder
from llavachat_server.values import EngineInfo, ModelInfo


class Backend:
    """Loads a model and widens its embedding; belongs to one worker thread.

    Args:
        settings: which model, and how.
        progress: told about each stage, on the calling thread.

    Raises:
        LoadingError: the checkpoint or the settings do not work.
    """

    def __init__(self, settings: EngineSettings, progress: Progress) -> None:
        self._settings = settings
        self._num_threads = settings.num_threads or torch.get_num_threads()
        # Two threads that both open parallel regions slow each other down; on a CPU the
        # generation loop's is the one that matters.
        torch.set_num_threads(1)
        self.loaded: LoadedModel = load_model(settings, progress)
        model, facts = self.loaded.model, self.loaded.facts
        self.vision = VisionEncoder(model, facts.pixel_form)
        self.embedding = VirtualEmbedding(
            model.get_input_embeddings(),
            facts.prompts.special.bos,
            settings.num_bank_images,
            facts.num_image_tokens,
        )
        model.set_input_embeddings(self.embedding)
        weight = self.embedding.weight
        if settings.compile_steps and weight.device.type == "cpu":
            if weight.dtype == torch.float32:
                compile_apart(settings.compiled_folder)
            native.keep_compiled(settings.compiled_folder)
        self.decoder = Decoder(
            model,
            facts.context_tokens,
            compile_steps=settings.compile_steps,
            release_weights=True,
            num_threads=self._num_threads,
        )
        if self.decoder.native is not None:
            self.vision.use_kernels(self._num_threads, self._is_idle, release=True)
            self.decoder.native.leave_a_core(lambda: not self.vision.is_on_a_core)
        if self.decoder.has_own_weights:
            copy_out(model)
        self._core: Core | None = None
        try:
            self.table = TokenTable(facts.tokenizer)
        except ValueError as error:
            raise LoadingError(str(error)) from error

    def make_loop(
        self, deliver: Deliver, on_end: Callable[[], None]
    ) -> tuple[GenerationLoop, SeenTokens]:
        """A loop that runs, with an empty cache, and its table for repetition penalties.

        Raises:
            LoadingError: the cache does not fit.
        """
        settings, facts = self._settings, self.loaded.facts
        seen = SeenTokens(settings.max_running, facts.vocab_size, self.embedding.weight.device)
        try:
            core = self._core = self._make_core(seen)
        except MemoryError as error:
            raise LoadingError(
                "the key-value cache does not fit into memory; "
                "lower kv_cache_tokens, max_batch_tokens or max_running"
            ) from error
        prepare = self._leave_untuned if settings.exact else self.decoder.tune
        # Beside the kernels' threads, torch's would spin between the few operations left to it.
        num_threads = self._num_threads if self.decoder.native is None else 1
        loop = GenerationLoop(core, prepare, deliver, on_end, num_threads)
        loop.start()
        return loop, seen

    def _is_idle(self) -> bool:
        """Whether the generation loop computes nothing; from any thread."""
        return self._core is None or not self._core.has_work

    def _leave_untuned(self) -> None:
        """What `Decoder.tune` finds depends on the moment, and sums depend on what it finds."""

    def _make_core(self, seen: SeenTokens) -> Core:
        settings, placement, decoder = self._settings, self.loaded.placement, self.decoder
        attention, pool = make_cache(
            placement.attention,
            decoder.shape,
            size_cache(
                placement.cache_tokens,
                settings.kv_memory_fraction,
                free_bytes=count_free_bytes(decoder.device),
                token_bytes=count_token_bytes(decoder.shape, decoder.dtype),
                block=placement.page_tokens,
            ),
            placement.page_tokens,
            decoder.dtype,
            decoder.device,
            exact=settings.exact,
        )
        graphs = None
        if placement.records_decoding and isinstance(attention, PagedAttention):
            context_tokens = self.loaded.facts.context_tokens
            graphs = DecodeGraphs(decoder, attention, settings.max_running, context_tokens)
            graphs.record()
        scheduler = (
            ExactScheduler(pool, placement.max_batch_tokens, settings.max_running)
            if settings.exact
            else Scheduler(
                pool,
                GapBudget(placement.gap_seconds, placement.max_batch_tokens),
                settings.max_running,
            )
        )
        return Core(
            Runner(decoder, attention, graphs),
            scheduler,
            seen,
            self.loaded.facts.silent_ids,
        )

    def fill_slot(self, slot: int, picture: Image.Image) -> None:
        """Encode an RGB picture and put its features into the bank."""
        self.embedding.write(slot, self.vision.encode(self.vision.preprocess(picture)))

    def describe(self, request_capacity_tokens: int) -> EngineInfo:
        """What callers must know; the context is bounded by what one cache can hold."""
        loaded, facts, settings = self.loaded, self.loaded.facts, self._settings
        device = self.embedding.weight.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        compiled = ("compiled",) if self.decoder.native is not None else ()
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
            device=", ".join((name, *compiled, *exact)),
            context_tokens=min(facts.context_tokens, request_capacity_tokens),
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
            max_images=self._settings.num_bank_images,
            max_tokens=self._settings.max_tokens,
            vocab_size=info.vocab_size,
            special=self.loaded.facts.prompts.special,
            silent_ids=frozenset(self.loaded.facts.silent_ids),
        )
