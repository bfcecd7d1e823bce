"""What a device computes, when, and what it refuses; its graphs and its events."""

import ctypes
import functools
import sys
import threading
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from pretended.memory import alias, make_tensor

_PROCESSOR = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)

KERNELS: dict[str, Callable[..., Any]] = {}
"""What a processor has not, by the operation's name; see `kernels`."""

CONTRACTS: dict[str, Callable[..., None]] = {}
"""What kernels for CUDA take; called with the device and the operation's arguments."""

_VIEWS = {"aten::view", "aten::as_strided", "aten::_reshape_alias", "aten::unfold", "aten::set_"}
"""A processor's kernel for these looks at no memory, and takes a tensor of any device."""

_EMPTY = {"aten::empty.memory_format", "aten::empty_strided"}
_WAITING = {"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::equal"}
"""Their result's size, or the result, is asked of the device."""

_INDEXING = {"aten::index.Tensor", "aten::index_put_", "aten::_index_put_impl_"}


def _is_ours(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "cuda"


def _map(value: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_map(item, change) for item in value)
    return {k: _map(v, change) for k, v in value.items()} if isinstance(value, dict) else value


def _list_tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    _map(value, found.append)
    return found


_current: list["Gpu"] = []


def gpu() -> "Gpu":
    """The device that is there."""
    return _current[-1]


class _Pool:
    """Memory of some graphs."""

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []

    def overwrite(self) -> None:
        for block in self.blocks:
            ctypes.memset(
                block.untyped_storage().data_ptr(), 0xFF, block.untyped_storage().nbytes()
            )


class Graph:
    """`torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.memory = _Pool()
        self.tape: list[Callable[[], None]] = []
        self.read: dict[int, StorageWeakRef] = {}

    def pool(self) -> _Pool:
        """For the next one's capture."""
        return self.memory

    def replay(self) -> None:
        """Compute what was captured anew, once somebody waits for it."""
        if any(storage.expired() for storage in self.read.values()):
            raise AssertionError("a graph reads memory that was freed")
        gpu().queue(self._replay)

    def _replay(self) -> None:
        self.memory.overwrite()
        for entry in self.tape:
            entry()


class Event:
    """`torch.cuda.Event`."""

    def __init__(self, *_: object, **__: object) -> None:
        self.mark = 0

    def record(self, *_: object) -> None:
        """Behind all that was asked for."""
        self.mark = gpu().num_queued

    def synchronize(self) -> None:
        """Wait for that."""
        gpu().wait("event", self.mark)


class Stream:
    """`torch.cuda.Stream`; all are one."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def wait_stream(self, _: object) -> None:
        """Nothing to wait for."""

    def synchronize(self) -> None:
        """Wait for all."""
        gpu().wait("stream")


class Gpu:
    """The device, and what was seen of it.

    Args:
        capability: major and minor.
        free_bytes: what is free, whatever is allocated.
    """

    def __init__(self, capability: tuple[int, int], free_bytes: int) -> None:
        self.capability = capability
        self.free_bytes = free_bytes
        self.waits: list[tuple[str, str]] = []
        """What made the host wait, and the line of ours."""
        self.num_replays = 0
        self.fail: Callable[[str], BaseException | None] = lambda name: None
        """Asked before each operation, by name; what it returns is raised."""
        self.pinned: dict[int, StorageWeakRef] = {}
        self._blocks: list[tuple[StorageWeakRef, int]] = []
        self.num_queued = 0
        self._queue: list[Callable[[], None]] = []
        self.intrusions: list[str] = []
        """Lines of ours on other threads that came while a graph was captured, and had to wait."""
        self._graph: Graph | None = None
        self._capturer = 0
        self._lock = threading.RLock()

    @contextmanager
    def _hold(self) -> Iterator[None]:
        if self._graph is not None and threading.get_ident() != self._capturer:
            self.intrusions.append(_find_line())
        with self._lock:
            yield

    @property
    def captures(self) -> bool:
        """A graph is being captured."""
        return self._graph is not None

    # What is computed when.

    def queue(self, work: Callable[[], None]) -> None:
        """Do it once somebody waits."""
        with self._hold():
            self._queue.append(work)
            self.num_queued += 1

    def wait(self, kind: str, mark: int | None = None) -> None:
        """Have the host wait for what is queued, up to a mark."""
        with self._hold():
            if self._graph is not None:
                raise RuntimeError(
                    f"CUDA error: operation not permitted when stream is capturing ({kind})"
                )
            self.waits.append((kind, _find_line()))
            self.flush(mark)

    def flush(self, mark: int | None = None) -> None:
        """Do what is queued, up to a mark; nobody waits."""
        left = 0 if mark is None else self.num_queued - mark
        # A device knows no modes: whichever thread waits, another's tensors are written.
        with torch.inference_mode():
            while len(self._queue) > left:
                self._queue.pop(0)()

    @contextmanager
    def capture(self, graph: Graph, pool: _Pool | None = None, **_: Any) -> Iterator[None]:
        """`torch.cuda.graph`."""
        with self._lock:
            self.wait("capture")
            graph.memory = pool or graph.memory
            self._graph, self._capturer = graph, threading.get_ident()
            try:
                yield
            finally:
                self._graph = None
                graph.memory.overwrite()

    # Operations.

    def compute(self, op: Any, *args: Any, **kwargs: Any) -> Any:
        """Any operation."""
        name = op.name()
        if name.split(".")[0] in _VIEWS:
            return op.redispatch(_PROCESSOR, *args, **kwargs)
        with self._hold():
            if (error := self.fail(name)) is not None:
                raise error
            if name in _EMPTY:
                return self._allocate(name, args, kwargs)
            tensors = _list_tensors((args, kwargs))
            self._check(name, args, kwargs, tensors)
            if not self._graph:
                self.flush()
            return self._compute(op, name, tensors, args, kwargs)

    def _allocate(self, name: str, args: Any, kwargs: Any) -> Tensor:
        strides = args[1] if name.endswith("strided") else None
        if strides is None:
            like = torch.empty(
                args[0],
                memory_format=kwargs.get("memory_format") or torch.contiguous_format,
                device="meta",
            )
            strides = like.stride()
        return self._keep(
            make_tensor(args[0], strides, kwargs.get("dtype") or torch.get_default_dtype())
        )

    def _keep(self, made: Tensor) -> Tensor:
        storage = made.untyped_storage()
        self._blocks.append((StorageWeakRef(storage), storage.nbytes()))
        if self._graph is not None:
            self._graph.memory.blocks.append(made)
        return made

    def _check(self, name: str, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
        others = [t for t in tensors if not _is_ours(t) and t.dim()]
        if name in _INDEXING:
            indices = [t for t in args[1] if t is not None]
            if any(not _is_ours(t) for t in indices):
                self.wait("an index from the host")
            others = [t for t in others if not any(t is index for index in indices)]
            if any(t.dtype in (torch.bool, torch.uint8) for t in indices):
                self.wait("an index of truths")
        if others:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"cuda:0 and cpu! ({name})"
            )
        if name in _WAITING:
            self.wait(name)
        if name in CONTRACTS:
            CONTRACTS[name](self, *args, **kwargs)

    def _compute(self, op: Any, name: str, tensors: list[Tensor], args: Any, kwargs: Any) -> Any:
        known: dict[int, tuple[Tensor, Tensor]] = {}
        for tensor in tensors:
            if _is_ours(tensor) and id(tensor) not in known:
                # What is still empty is often given its size by the operation.
                fresh = (
                    torch.empty(0, dtype=tensor.dtype) if tensor.shape == (0,) else alias(tensor)
                )
                known[id(tensor)] = (fresh, tensor)
        kernel = KERNELS.get(name, op)
        if any(
            isinstance(value, (int, float)) and "Tensor" in str(argument.type)
            for value, argument in zip(args, op._schema.arguments, strict=False)
        ):
            # A number that was put into a tensor by the way, and is none again here.
            kernel = op.overloadpacket
        takes = [
            _map(part, lambda t: known[id(t)][0] if id(t) in known else t)
            for part in (args, kwargs)
        ]
        if "device" in takes[1]:
            takes[1]["device"] = torch.device("cpu")
        run = functools.partial(kernel, *takes[0], **takes[1])
        results = run()
        back = {id(alias): tensor for alias, tensor in known.values()}
        shared = {
            alias.untyped_storage().data_ptr() for alias, tensor in known.values() if tensor.numel()
        }
        made: list[Tensor] = []
        sized: set[int] = set()

        def wrap(result: Tensor) -> Tensor:
            if id(result) in back and back[id(result)].shape == result.shape:
                return back[id(result)]
            if result.numel() and result.untyped_storage().data_ptr() in shared:
                raise AssertionError(f"{name} makes a view, which is not modelled")
            if 0 in result.stride():
                result = result.contiguous()
            fresh = self._keep(make_tensor(result.shape, result.stride(), result.dtype))
            alias(fresh).copy_(result)
            made.append(fresh)
            if id(result) in back:
                sized.add(id(result))
                return back[id(result)].set_(fresh)
            return fresh

        wrapped = _map(results, wrap)
        if self._graph is not None:
            self._record(run, back.keys() - sized, made, list(back.values()))
        return wrapped

    def _record(
        self, run: Callable[[], Any], known: Set[int], made: list[Tensor], read: list[Tensor]
    ) -> None:
        graph = self._graph
        assert graph is not None
        own = {block.untyped_storage().data_ptr() for block in graph.memory.blocks}
        for tensor in read:
            place = tensor.untyped_storage().data_ptr()
            if place not in own:
                graph.read[place] = StorageWeakRef(tensor.untyped_storage())
        places = [alias(tensor) for tensor in made]

        def repeat() -> None:
            fresh = [t for t in _list_tensors(run()) if id(t) not in known]
            for place, result in zip(places, fresh, strict=True):
                place.copy_(result)

        graph.tape.append(repeat)

    def copy(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        """`aten::copy_`."""
        with self._hold():
            if (error := self.fail("aten::copy_")) is not None:
                raise error
            ours = alias(target) if _is_ours(target) else target
            theirs = alias(source) if _is_ours(source) else source

            def move(keep: Any = (target, source)) -> None:
                ours.copy_(theirs)

            if _is_ours(target) and _is_ours(source):
                if self._graph is not None:
                    move()
                    self._record(lambda: move(None), set(), [], [target, source])
                else:
                    self.queue(move)
            elif not non_blocking or not self.is_pinned(source if _is_ours(target) else target):
                self.wait("a copy from the host" if _is_ours(target) else "a copy to the host")
                move()
            elif self._graph is not None:
                raise AssertionError("a copy from the host in a graph is not modelled")
            else:
                self.queue(move)
            return target

    def read_number(self, tensor: Tensor) -> Any:
        """`aten::_local_scalar_dense`."""
        with self._hold():
            self.wait("a number to the host")
            return alias(tensor).item()

    # Memory.

    def live_bytes(self) -> int:
        """What is allocated."""
        self._blocks = [block for block in self._blocks if not block[0].expired()]
        return sum(num_bytes for _, num_bytes in self._blocks)

    def is_pinned(self, tensor: Tensor) -> bool:
        """Whether it was made so."""
        known = self.pinned.get(tensor.untyped_storage().data_ptr())
        return known is not None and not known.expired()

    def make_pinned(self, make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """`torch.zeros` and its like, which know pinned memory."""

        def wrapped(*args: Any, pin_memory: bool = False, **kwargs: Any) -> Tensor:
            made = make(*args, **kwargs)
            if pin_memory:
                storage = made.untyped_storage()
                self.pinned[storage.data_ptr()] = StorageWeakRef(storage)
            return made

        return wrapped


def _find_line() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if "llavachat_server" in path:
            return f"{path.rsplit('llavachat_server/', 1)[1]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"
