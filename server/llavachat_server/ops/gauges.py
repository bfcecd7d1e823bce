"""What is looked up whenever somebody asks: how busy the server is, and its GPU.

Each reading is a few attribute reads, on whatever thread asks. It must not know gRPC, chats or
torch.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from llavachat_server.ops.gpu import Gpu, GpuReader
from llavachat_server.values import EngineLoad


class ServerState(Enum):
    """Where a server is in its life."""

    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much a server takes at once; zeros until the model is loaded."""

    max_running: int = 0
    max_queued: int = 0


@dataclass(frozen=True, slots=True)
class Sources:
    """Where readings come from; each is called on whatever thread asks.

    Args:
        state: the server's.
        num_turns: turns that run or wait, the pulse's own left out.
        load: the engine's.
        capacity: the engine's.
        gpus: reads GPUs; None where there is no way to.
    """

    state: Callable[[], ServerState]
    num_turns: Callable[[], int]
    load: Callable[[], EngineLoad]
    capacity: Callable[[], Capacity]
    gpus: GpuReader | None


Reading = Callable[[CallbackOptions], Iterable[Observation]]


def add_gauges(meter: Meter, sources: Sources) -> None:
    """Make the instruments that are looked up.

    Args:
        meter: makes them.
        sources: what they tell.
    """
    _add_server(meter, sources)
    _add_caches(meter, sources)
    if sources.gpus is not None:
        _add_gpus(meter, sources.gpus)


def _add_server(meter: Meter, sources: Sources) -> None:
    def read_state(_: CallbackOptions) -> Iterable[Observation]:
        now = sources.state()
        for state in ServerState:
            yield Observation(int(state is now), {"state": state.value})

    def read_running(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(max(0, sources.num_turns() - sources.load().num_queued))

    def read_queued(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(sources.load().num_queued)

    def read_running_limit(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(sources.capacity().max_running)

    def read_queued_limit(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(sources.capacity().max_queued)

    def read_restarts(_: CallbackOptions) -> Iterable[Observation]:
        yield Observation(sources.load().num_restarts)

    gauge = meter.create_observable_gauge
    gauge("llavachat.server.state", [read_state], "", "1 for the state that the server is in")
    gauge("llavachat.turns.running", [read_running], "{turn}", "Turns that are being answered")
    gauge("llavachat.turns.queued", [read_queued], "{turn}", "Turns that wait for a place")
    gauge(
        "llavachat.turns.running.limit", [read_running_limit], "{turn}", "Most turns side by side"
    )
    gauge("llavachat.turns.queued.limit", [read_queued_limit], "{turn}", "Most turns in the line")
    meter.create_observable_counter(
        "llavachat.engine.restarts",
        [read_restarts],
        "{restart}",
        "How often the generation loop was begun anew",
    )


def _add_caches(meter: Meter, sources: Sources) -> None:
    def read_cache(_: CallbackOptions) -> Iterable[Observation]:
        load = sources.load()
        yield Observation(load.held_tokens, {"state": "held"})
        yield Observation(load.kept_tokens, {"state": "kept"})
        free = load.cache_tokens - load.held_tokens - load.kept_tokens
        yield Observation(max(0, free), {"state": "free"})

    def read_images(_: CallbackOptions) -> Iterable[Observation]:
        load = sources.load()
        yield Observation(load.image_hits, {"result": "hit"})
        yield Observation(load.image_misses, {"result": "miss"})

    meter.create_observable_gauge(
        "llavachat.kv_cache.tokens", [read_cache], "{token}", "Places of the key-value cache"
    )
    meter.create_observable_counter(
        "llavachat.image_cache.images",
        [read_images],
        "{image}",
        "Pictures whose features were at hand, or had to be computed",
    )


def _add_gpus(meter: Meter, reader: GpuReader) -> None:
    def reading(measure: Callable[[Gpu], float | None]) -> Reading:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            for gpu in reader.read():
                if (value := measure(gpu)) is not None:
                    yield Observation(value, {"hw.id": gpu.id, "hw.name": gpu.name})

        return read

    meter.create_observable_gauge(
        "hw.gpu.utilization",
        [reading(lambda gpu: gpu.utilization)],
        "1",
        "Share of the time in which the GPU computed",
    )
    meter.create_observable_up_down_counter(
        "hw.gpu.memory.usage",
        [reading(lambda gpu: gpu.used_bytes)],
        "By",
        "The GPU's memory in use, by whomever",
    )
    meter.create_observable_up_down_counter(
        "hw.gpu.memory.limit", [reading(lambda gpu: gpu.total_bytes)], "By", "The GPU's memory"
    )
    meter.create_observable_gauge(
        "hw.temperature", [reading(lambda gpu: gpu.celsius)], "Cel", "The GPU's temperature"
    )
    meter.create_observable_gauge(
        "hw.power", [reading(lambda gpu: gpu.watts)], "W", "What the GPU draws"
    )
