"""The whole of LLaVA by torch's operations; see `engine.backend`."""

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image

from llavachat_server.engine.backend import Backend, Loaded
from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.core import Core
from llavachat_server.engine.batching.sizing import count_token_bytes, size_cache
from llavachat_server.engine.checkpoint import Checkpoint, CheckpointFacts, LoadingError
from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.llava.weights import copy_out
from llavachat_server.engine.placement import Placement, place_in_pieces
from llavachat_server.engine.progress import Progress
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.shortage import is_memory_shortage
from llavachat_server.engine.tensors.attention import PieceAttention
from llavachat_server.engine.tensors.cache import count_free_bytes, make_cache
from llavachat_server.engine.tensors.embedding import VirtualEmbedding
from llavachat_server.engine.tensors.graphs import DecodeGraphs, DrawGraphs
from llavachat_server.engine.tensors.likely import draw_eagerly
from llavachat_server.engine.tensors.loading import read_model
from llavachat_server.engine.tensors.paged import PagedAttention
from llavachat_server.engine.tensors.runner import Decoder, Runner
from llavachat_server.engine.tensors.sampling import TensorSampler
from llavachat_server.engine.tensors.trial import FEW_ROWS, compute_trial, describe_error
from llavachat_server.engine.tensors.vision import VisionEncoder
from llavachat_server.engine.tensors.way import Way

Graphs = TypeVar("Graphs", DecodeGraphs, DrawGraphs)

_log = logging.getLogger(__name__)


def open_backend(
    settings: EngineSettings,
    checkpoint: Checkpoint,
    facts: CheckpointFacts,
    placement: Placement,
    progress: Progress,
    fingerprint: Fingerprint | None,
) -> "TensorBackend":
    """Load a model; see `opening.open_backend`.

    Raises:
        LoadingError: a file is broken.
    """
    num_threads = settings.num_threads or torch.get_num_threads()
    # Two threads that both open parallel regions slow each other down; on a CPU the
    # generation loop's is the one that matters.
    torch.set_num_threads(1)
    model, weights_sha256 = read_model(
        settings, checkpoint.folder, facts.config, placement, progress, fingerprint
    )
    loaded = Loaded(checkpoint, facts, placement, weights_sha256)
    return TensorBackend(settings, loaded, model, num_threads)


class TensorBackend(Backend):
    """See `engine.backend.Backend`.

    Args:
        settings: how it was loaded.
        loaded: what was.
        model: `llava.model.Llava`, or transformers' own; its embedding is widened.
        num_threads: of the generation loop on a CPU.
    """

    def __init__(
        self, settings: EngineSettings, loaded: Loaded, model: Any, num_threads: int
    ) -> None:
        super().__init__(settings, loaded)
        facts = loaded.facts
        self._num_threads = num_threads
        self.way: Way | None = None
        """How steps are computed, once there is a core."""
        self.model = model
        self.vision = VisionEncoder(model, facts.pixel_form)
        self.embedding = VirtualEmbedding(
            model.get_input_embeddings(),
            self.ids,
            facts.prompts.special.bos,
            settings.num_bank_images,
            facts.num_image_tokens,
        )
        model.set_input_embeddings(self.embedding)
        self.decoder = Decoder(
            model,
            facts.context_tokens,
            release_weights=True,
            int8_threshold=settings.int8_threshold,
        )
        if self.decoder.has_own_weights:
            copy_out(model)

    @property
    def device_name(self) -> str:
        """See `Backend`."""
        device = self.decoder.device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"

    @property
    def is_compiled(self) -> bool:
        """See `Backend`."""
        return False

    def prepare_thread(self) -> None:
        """See `Backend`."""
        torch.set_num_threads(self._num_threads)
        # What `Decoder.tune` finds depends on the moment, and sums depend on what it finds.
        if not self.settings.exact:
            self.decoder.tune()

    def make_core(self) -> Core:
        """See `Backend`."""
        try:
            return self._make_core()
        except torch.OutOfMemoryError as error:
            raise MemoryError from error

    def _make_core(self) -> Core:
        attention, pool = self._make_cache()
        troubles = []
        if isinstance(attention, PagedAttention) and (trouble := self._find_trouble(attention)):
            troubles.append(trouble)
            # Two caches do not fit where one takes what there is.
            del attention, pool
            self.loaded = replace(self.loaded, placement=place_in_pieces(self.loaded.placement))
            attention, pool = self._make_cache()
            self._check_steps(attention, FEW_ROWS)
        settings, placement, facts = self.settings, self.loaded.placement, self.loaded.facts
        decoder, rows = self.decoder, settings.max_running
        steps: DecodeGraphs | None = None
        draws: DrawGraphs | None = None
        if placement.records_decoding and isinstance(attention, PagedAttention):
            steps = _record(
                partial(DecodeGraphs, decoder, attention, rows, facts.context_tokens),
                "steps",
                troubles,
            )
            if steps is None:
                # Whatever stood against it, memory too, steps must have what they need without.
                self._check_steps(attention, min(placement.max_batch_tokens, facts.context_tokens))
            else:
                draws = _record(
                    partial(DrawGraphs, rows, facts.vocab_size, decoder.device), "draws", troubles
                )
        self.way = Way(
            attention=placement.attention,
            dtype=placement.dtype,
            page_tokens=placement.page_tokens,
            cache_tokens=pool.num_blocks * pool.block_tokens,
            records_steps=steps is not None,
            records_draws=draws is not None,
            troubles=tuple(troubles),
        )
        if placement.device == "cuda":
            _log.info("computing on the GPU: %s", self.way)
        sampler = TensorSampler(
            rows, facts.vocab_size, facts.silent_ids, decoder.device, draws or draw_eagerly
        )
        return Core(Runner(decoder, attention, steps), self.make_scheduler(pool), sampler)

    def _make_cache(self) -> tuple[PieceAttention | PagedAttention, BlockPool]:
        placement, decoder = self.loaded.placement, self.decoder
        return make_cache(
            placement.attention,
            decoder.shape,
            size_cache(
                placement.cache_tokens,
                self.settings.kv_memory_fraction,
                free_bytes=count_free_bytes(decoder.device),
                token_bytes=count_token_bytes(decoder.shape, decoder.dtype.itemsize),
                block=placement.page_tokens,
            ),
            placement.page_tokens,
            decoder.dtype,
            decoder.device,
            exact=self.settings.exact,
        )

    def _find_trouble(self, attention: PagedAttention) -> str:
        try:
            compute_trial(self.decoder, attention)
        except Exception as error:
            if is_memory_shortage(error):
                # Not always torch's own error: a library may find no room for its kernels. Where
                # handles run short, as for a compiler, pieces may do, and no smaller cache.
                raise MemoryError from error
            _log.exception("the kernel for pages fails on this GPU")
            # Not the exception itself, which holds the cache.
            return f"no attention in pages: {describe_error(error)}"
        return ""

    def _check_steps(self, attention: PieceAttention | PagedAttention, num_rows: int) -> None:
        try:
            compute_trial(self.decoder, attention, num_rows)
        except Exception as error:
            if is_memory_shortage(error):
                raise MemoryError from error
            raise LoadingError(
                f"the model can not be computed on this GPU: {describe_error(error)}"
            ) from error

    def describe_steps(self) -> dict[str, Any]:
        """See `Backend`."""
        return {} if self.way is None else {**asdict(self.way), "words": str(self.way)}

    def fill_slot(self, slot: int, picture: Image.Image) -> None:
        """See `Backend`."""
        self.embedding.write(slot, self.vision.encode(self.vision.preprocess(picture)))


def _record(make: Callable[[], Graphs], name: str, troubles: list[str]) -> Graphs | None:
    try:
        graphs = make()
        graphs.record()
    except Exception as error:
        # Whatever a library does in a step that can not be recorded, it does well without; and a
        # cache that leaves no memory for graphs may leave enough for steps.
        _log.exception("decoding is not recorded as CUDA graphs: %s", name)
        troubles.append(f"{name} are not recorded: {describe_error(error)}")
    else:
        return graphs
    # What was recorded before it failed.
    torch.cuda.empty_cache()
    return None
