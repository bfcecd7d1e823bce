"""The whole of LLaVA on a CPU by the kernels; see `engine.backend`."""

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from llavachat_server.engine.backend import Backend, Loaded
from llavachat_server.engine.batching.blocks import BlockPool
from llavachat_server.engine.batching.core import Core
from llavachat_server.engine.batching.sizing import (
    count_built_in_bytes,
    count_token_bytes,
    size_cache,
)
from llavachat_server.engine.checkpoint import (
    Checkpoint,
    CheckpointFacts,
    LoadingError,
)
from llavachat_server.engine.fingerprint import Fingerprint
from llavachat_server.engine.kept import CopyUnreadable, Recipe, read_by_copy
from llavachat_server.engine.llava.files import ArrayWeights, WeightsMissing, map_weights
from llavachat_server.engine.native import pages
from llavachat_server.engine.native.apart import Kernels, get_kernels
from llavachat_server.engine.native.cache import Cache
from llavachat_server.engine.native.embedding import RowTable
from llavachat_server.engine.native.packed import Packed, map_packed, pack, write_packed
from llavachat_server.engine.native.sampling import ArraySampler
from llavachat_server.engine.native.steps import NativeDecoder, NativeRunner
from llavachat_server.engine.native.threads import count_cores
from llavachat_server.engine.native.tower import NativeTower
from llavachat_server.engine.packed_copy import (
    KIND,
    MIN_COPY_BYTES,
    begin_fingerprint,
    describe_form,
)
from llavachat_server.engine.placement import Placement
from llavachat_server.engine.progress import Progress, stage
from llavachat_server.engine.settings import EngineSettings
from llavachat_server.engine.shelf import Shelf
from llavachat_server.engine.shortage import is_shortage
from llavachat_server.engine.virtual_ids import VirtualIds
from llavachat_server.images.preprocess import pad_to_square

_log = logging.getLogger(__name__)

_ELEMENT_BYTES = 4
"""Of float32."""


def open_backend(
    settings: EngineSettings,
    checkpoint: Checkpoint,
    facts: CheckpointFacts,
    placement: Placement,
    progress: Progress,
    fingerprint: Fingerprint | None,
) -> "NativeBackend":
    """Load a model; see `opening.open_backend`.

    Raises:
        NoKernels: the kernels can not be had.
        WeightsMissing: a weight is not there, or has another shape.
        LoadingError: a file is broken.
    """
    shelf = None if settings.quantized_folder is None else Shelf(Path(settings.quantized_folder))
    fingerprint = fingerprint or begin_fingerprint(checkpoint.folder, shelf)
    with stage("libraries", progress):
        kernels = get_kernels(settings.compiled_folder)
    folder = checkpoint.folder
    recipe = Recipe(
        kind=KIND,
        form=describe_form(),
        make=lambda: pack(_map_source(folder), facts.config),
        read=lambda copy: _map_copy(copy, facts),
        write=write_packed,
        count_bytes=lambda packed: packed.num_bytes,
        min_bytes=MIN_COPY_BYTES,
    )
    packed, weights_sha256 = read_by_copy(recipe, folder, shelf, fingerprint, progress)
    model = make_model(settings, facts, kernels, packed)
    return NativeBackend(settings, Loaded(checkpoint, facts, placement, weights_sha256), model)


@dataclass(frozen=True, slots=True, eq=False)
class NativeModel:
    """What looks ids up, what speaks, and what sees."""

    rows: RowTable
    decoder: NativeDecoder
    tower: NativeTower


def make_model(
    settings: EngineSettings, facts: CheckpointFacts, kernels: Kernels, packed: Packed
) -> NativeModel:
    """A model of packed weights."""
    config, num_threads = facts.config, settings.num_threads or count_cores()
    rows = RowTable(
        packed.words,
        VirtualIds(facts.vocab_size),
        facts.prompts.special.bos,
        settings.num_bank_images,
        facts.num_image_tokens,
    )
    decoder = NativeDecoder(kernels.step, packed.panels, config, rows, num_threads)
    return NativeModel(rows, decoder, NativeTower(kernels.tower, packed.tower, config, num_threads))


def _map_copy(folder: Path, facts: CheckpointFacts) -> Packed:
    try:
        return map_packed(folder, facts.config)
    except (OSError, ValueError) as error:
        if is_shortage(error):
            # Of which the copy is not to blame.
            raise LoadingError(
                f"the weights in {folder.name} can not be mapped: {type(error).__name__}, "
                f"{getattr(error, 'strerror', '')}"
            ) from error
        raise CopyUnreadable(f"{type(error).__name__}: {error}") from error


def _map_source(folder: Path) -> ArrayWeights:
    try:
        return map_weights(folder)
    except WeightsMissing:
        raise
    except Exception as error:
        raise LoadingError(
            f"the weights in {folder.name} can not be loaded: {type(error).__name__}"
        ) from error


class NativeBackend(Backend):
    """See `engine.backend.Backend`.

    Args:
        settings: how it was loaded.
        loaded: what was.
        model: its weights.
    """

    def __init__(self, settings: EngineSettings, loaded: Loaded, model: NativeModel) -> None:
        super().__init__(settings, loaded)
        self.model = model
        # A step and a picture at once would have more threads than there are cores.
        model.tower.leave_cores(self.is_idle)
        model.decoder.leave_a_core(lambda: not model.tower.is_running)

    @property
    def device_name(self) -> str:
        """See `Backend`."""
        return "cpu"

    @property
    def is_compiled(self) -> bool:
        """See `Backend`."""
        return True

    def prepare_thread(self) -> None:
        """See `Backend`."""

    def make_core(self) -> Core:
        """See `Backend`."""
        settings, placement, facts = self.settings, self.loaded.placement, self.loaded.facts
        decoder = self.model.decoder
        num_blocks = size_cache(
            placement.cache_tokens,
            settings.kv_memory_fraction,
            free_bytes=count_built_in_bytes(),
            token_bytes=count_token_bytes(decoder.shape, _ELEMENT_BYTES),
            block=placement.page_tokens,
        )
        cache = Cache(decoder.shape, num_blocks, placement.page_tokens)
        scheduler = self.make_scheduler(BlockPool(num_blocks, placement.page_tokens))
        sampler = ArraySampler(settings.max_running, facts.vocab_size, facts.silent_ids)
        return Core(NativeRunner(decoder, cache), scheduler, sampler)

    def fill_slot(self, slot: int, picture: Image.Image) -> None:
        """See `Backend`."""
        pixels = self.loaded.facts.pixel_form.convert(pad_to_square(picture))
        self.model.rows.write(slot, self.model.tower.run(pixels))

    def _computes_nothing(self) -> bool:
        return self.is_idle() and not self.model.tower.is_running

    def settle(self, stopping: threading.Event) -> None:
        """See `Backend`; weights that are mapped come into large pages."""
        holders = [
            holder
            for holder in (self.model.decoder, self.model.tower)
            if pages.is_mapped(holder.panels)
        ]
        obstacle = pages.find_obstacle(sum(holder.panels.nbytes for holder in holders))
        if holders and obstacle:
            _log.info("weights stay in their file's pages: %s", obstacle)
        if not holders or obstacle or stopping.wait(pages.BEGIN_SECONDS):
            return
        for holder in holders:
            try:
                copied = pages.copy(holder.panels, self._computes_nothing, stopping)
            except (OSError, MemoryError) as error:
                _log.warning("weights stay in their file's pages: %s", error)
                return
            if copied is not None:
                # What computes at this moment goes on with the old ones.
                holder.panels = copied
