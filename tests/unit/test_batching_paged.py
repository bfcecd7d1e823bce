"""The indices that a GPU's kernel is given, and which graphs are recorded; no GPU needed."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from llavachat_server.engine.batching.inputs import Input
from llavachat_server.engine.batching.sequence import Draw
from llavachat_server.engine.batching.sizing import count_token_bytes, size_cache
from llavachat_server.engine.tensors import graphs
from llavachat_server.engine.tensors.attention import Rows, Shape
from llavachat_server.engine.tensors.cache import count_free_bytes
from llavachat_server.engine.tensors.graphs import DecodeGraphs, DrawGraphs, choose_graph_sizes
from llavachat_server.engine.tensors.paged import build_pages, has_paged_kernel
from torch.utils._python_dispatch import TorchDispatchMode


def test_pages_of_a_mixed_step() -> None:
    """One request decodes at position 5, another brings its tokens 2 to 6."""
    batch = [Rows(0, 1, 5, [7, 3]), Rows(1, 5, 2, [1, 9, 4])]
    pages = build_pages(batch, 4, torch.device("cpu"))

    assert [13, 6, 7, 36, 37, 38] == pages.slots.tolist()
    assert [0, 1, 6] == pages.row_ends.tolist()
    assert [6, 7] == pages.lengths.tolist()
    assert [[7, 3], [1, 9]] == pages.blocks.tolist()
    assert (5, 7) == (pages.max_rows, pages.max_length)
    assert {torch.int32} == {t.dtype for t in (pages.row_ends, pages.lengths, pages.blocks)}


def test_short_block_tables_are_padded() -> None:
    """With a block that is there."""
    pages = build_pages([Rows(0, 1, 0, [2]), Rows(1, 1, 9, [5, 6, 8])], 4, torch.device("cpu"))

    assert [[2, 2, 2], [5, 6, 8]] == pages.blocks.tolist()


@pytest.mark.parametrize(
    ("max_running", "expected"),
    [(1, [1]), (2, [1, 2]), (16, [1, 2, 4, 8, 16]), (24, [1, 2, 4, 8, 16, 24])],
)
def test_graph_sizes(max_running: int, expected: list[int]) -> None:
    """Every batch finds a size that is at most twice its own."""
    assert expected == choose_graph_sizes(max_running)


def test_the_pinned_torch_has_the_kernel() -> None:
    """The pages are made for its signature."""
    assert has_paged_kernel()


def test_an_older_torch_has_no_such_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of 2.11 takes no table of pages; 2.9 has not even the module."""

    def varlen_attn(query: Any, *, window_size: Any, enable_gqa: Any, seqused_k: Any) -> None:
        """As in 2.11."""

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    assert not has_paged_kernel()
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    monkeypatch.delattr("torch.nn.attention.varlen")
    assert not has_paged_kernel()


class Copies(TorchDispatchMode):
    """Counts what is copied, and what is made on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        """Call it, and look."""
        if function is torch.ops.aten.copy_.default and arguments[0].device.type == "meta":
            self.sizes.append(arguments[0].nbytes)
        return function(*arguments, **(keywords or {}))


def stand_still(compute: Any, pool: Any) -> Any:
    """A graph whose replay does nothing."""
    return SimpleNamespace(replay=lambda: None, pool=lambda: pool), torch.zeros(2, 4)


def test_a_step_is_sent_to_the_device_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by itself would be waited for, five times a step; the device here has no memory."""
    monkeypatch.setattr(graphs, "record", stand_still)
    decoder: Any = SimpleNamespace(device=torch.device("meta"))
    attention: Any = SimpleNamespace(block_tokens=4, spare_block=9)
    steps = DecodeGraphs(decoder, attention, max_running=2, context_tokens=12)
    steps.record()
    with Copies() as copies:
        steps.run([Input([5], 6, [1, 2], True)])

    # Ids, positions, slots; lengths; a table of three blocks for each.
    assert [2 * (3 * 8 + 4 + 3 * 4)] == copies.sizes


def test_a_step_s_numbers_are_where_the_graph_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a step that was larger before, padding is left alone."""
    monkeypatch.setattr(graphs, "record", stand_still)
    decoder: Any = SimpleNamespace(device=torch.device("cpu"))
    attention: Any = SimpleNamespace(block_tokens=4, spare_block=9)
    steps = DecodeGraphs(decoder, attention, max_running=4, context_tokens=12)
    steps.record()
    steps.run([Input([number], 7, [number, 3], True) for number in range(4)])
    steps.run([Input([5], 6, [1, 2], True), Input([7], 0, [4], True), Input([8], 1, [5], True)])

    assert [5, 7, 8, 0] == steps._ids.tolist()
    assert [6, 0, 1, 0] == steps._positions.tolist()
    assert [10, 16, 21, 36] == steps._slots.tolist()
    assert [7, 1, 2, 1] == steps._lengths.tolist()
    assert [[1, 2, 9], [4, 9, 9], [5, 9, 9], [9, 9, 9]] == steps._blocks.tolist()
    assert torch.int32 == steps._lengths.dtype == steps._blocks.dtype


def test_a_draw_s_numbers_are_sent_in_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """They and the scores, which are on the device."""
    monkeypatch.setattr(graphs, "record", stand_still)
    draws = DrawGraphs(max_running=2, vocab_size=4, device=torch.device("meta"))
    draws.record()
    with Copies() as copies:
        draws(torch.empty(1, 4, device="meta"), [Draw(temperature=1.0, top_p=0.5)], [3])

    assert [2 * (3 * 8 + 2 * 4), 4 * 4] == copies.sizes


def test_cache_of_a_7b_model_on_a_24_gb_gpu() -> None:
    """0.5 MiB a token: after 7.7 GB of weights and with 85 % of the rest, some 26,000 tokens."""
    shape = Shape(num_layers=32, num_heads=32, num_kv_heads=32, head_dim=128)
    token_bytes = count_token_bytes(shape, torch.float16.itemsize)
    blocks = size_cache(
        None, 0.85, free_bytes=24_000_000_000 - 7_700_000_000, token_bytes=token_bytes, block=256
    )

    assert 2**19 == token_bytes
    assert 26_000 == round(blocks * 256, -3)


def test_what_torch_keeps_is_given_back_before_a_gpu_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An earlier cache's memory stays torch's until then, and would seem to be taken."""
    free = 1_000

    def give_back() -> None:
        nonlocal free
        free = 20_000

    monkeypatch.setattr(torch.cuda, "empty_cache", give_back)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 24_000))

    assert 20_000 == count_free_bytes(torch.device("cuda"))


def test_too_large_a_cache_is_refused() -> None:
    """Before it is allocated."""
    with pytest.raises(MemoryError):
        size_cache(2**20, 0.85, free_bytes=2**20, token_bytes=1024, block=16)
