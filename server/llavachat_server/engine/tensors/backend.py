"""The whole of LLaVA by torch's operations; see `engine.backend`."""

import logging
from typing import Any, TypeVar

import torch
from PIL import Image

from llavachat_server.engine.backend import Backend, Loaded
from llavachat_server.engine.batching.core import Core
from llavachat_server.engine.batching.sizing import count_token_bytes, size_cache
from llavachat_server.engine.checkpoint import Checkpoint, CheckpointFacts
from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.llava.weights import copy_out
from llavachat_server.engine.placement import Placement
from llavachat_server.engine.progress import Progress
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.tensors.cache import count_free_bytes, make_cache
from llavachat_server.engine.tensors.embedding import VirtualEmbedding
from llavachat_server.engine.tensors.graphs import DecodeGraphs, DrawGraphs
from llavachat_server.engine.tensors.likely import draw_eagerly
from llavachat_server.engine.tensors.loading import read_model
from llavachat_server.engine.tensors.paged import PagedAttention
from llavachat_server.engine.tensors.runner import Decoder, Runner
from llavachat_server.engine.tensors.sampling import TensorSampler
from llavachat_server.engine.tensors.vision import VisionEncoder

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
        settings, placement, facts = self.settings, self.loaded.placement, self.loaded.facts
        decoder = self.decoder
        attention, pool = make_cache(
            placement.attention,
            decoder.shape,
            size_cache(
                placement.cache_tokens,
                settings.kv_memory_fraction,
                free_bytes=count_free_bytes(decoder.device),
                token_bytes=count_token_bytes(decoder.shape, decoder.dtype.itemsize),
                block=placement.page_tokens,
            ),
            placement.page_tokens,
            decoder.dtype,
            decoder.device,
            exact=settings.exact,
        )
        rows, device = settings.max_running, decoder.device
        steps: DecodeGraphs | None = None
        draws: DrawGraphs | None = None
        if placement.records_decoding and isinstance(attention, PagedAttention):
            steps = _record(DecodeGraphs(decoder, attention, rows, facts.context_tokens))
            draws = _record(DrawGraphs(rows, facts.vocab_size, device)) if steps else None
        sampler = TensorSampler(
            rows, facts.vocab_size, facts.silent_ids, device, draws or draw_eagerly
        )
        scheduler = self.make_scheduler(pool)
        return Core(Runner(decoder, attention, steps), scheduler, sampler)

    def fill_slot(self, slot: int, picture: Image.Image) -> None:
        """See `Backend`."""
        self.embedding.write(slot, self.vision.encode(self.vision.preprocess(picture)))


def _record(graphs: Graphs) -> Graphs | None:
    try:
        graphs.record()
    except torch.OutOfMemoryError:
        raise
    except Exception:
        # Whatever a library does in a step that can not be recorded, it does well without.
        _log.exception("decoding is not recorded as CUDA graphs")
        return None
    return graphs
