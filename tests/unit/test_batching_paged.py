"""The indices that a GPU's kernel is given, and which graphs are recorded; no GPU needed."""

import pytest
import torch
from llavachat_server.engine.batching.sizing import count_token_bytes, size_cache
from llavachat_server.engine.tensors.attention import Rows, Shape
from llavachat_server.engine.tensors.cache import count_free_bytes
from llavachat_server.engine.tensors.graphs import choose_graph_sizes
from llavachat_server.engine.tensors.paged import build_pages, has_paged_kernel


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
