"""The embedded model's tokenizer: Llama's kind, small.

Byte-pair merges with byte fallback, so that any text can be encoded; a space is '▁', put by the
normalizer; the decoder's steps are Llama's, so that ``DecodeStream`` works on it.

Source: the ``tokenizer.json`` layout of Llama's fast tokenizer (normalizer Prepend + Replace,
decoder Replace + ByteFallback + Fuse + Strip).
"""

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from training.network import BASE_VOCABULARY_TOKENS

LLAMA_SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
IMAGE_TOKEN = "<image>"
PAD_TOKEN = "<pad>"
_NUM_BYTES = 256


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learn the merges of `BASE_VOCABULARY_TOKENS` entries from a corpus.

    Args:
        texts: the corpus, in a fixed order.

    Returns:
        A tokenizer with ids 0-2 as Llama's, 3-258 the bytes, then characters and merges, and
        ``<image>`` and ``<pad>`` added after the base vocabulary.

    Raises:
        ValueError: the corpus is too small to fill the vocabulary.
    """
    byte_tokens = [f"<0x{value:02X}>" for value in range(_NUM_BYTES)]
    learner = Tokenizer(BPE(unk_token="<unk>"))
    learner.normalizer = _spaces_to_metaspace()
    # Merges cross neither spaces nor marks, though the finished tokenizer, as Llama's, has no
    # pre-tokenizer.
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("▁", "merged_with_next"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    trainer = BpeTrainer(
        vocab_size=BASE_VOCABULARY_TOKENS - _NUM_BYTES,
        special_tokens=list(LLAMA_SPECIAL_TOKENS),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learnt = learner.get_vocab()
    pieces = sorted(learnt, key=lambda piece: learnt[piece])[len(LLAMA_SPECIAL_TOKENS) :]
    names = [*LLAMA_SPECIAL_TOKENS, *byte_tokens, *pieces]
    if len(names) != BASE_VOCABULARY_TOKENS:
        raise ValueError(f"the corpus fills only {len(names)} of {BASE_VOCABULARY_TOKENS} entries")
    tokenizer = Tokenizer(
        BPE(
            vocab={name: index for index, name in enumerate(names)},
            merges=_read_merges(learner),
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = _spaces_to_metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    # Special and not normalized, or users could type them and spaces would stick to them.
    for name in (*LLAMA_SPECIAL_TOKENS, IMAGE_TOKEN, PAD_TOKEN):
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)])
    return tokenizer


def _spaces_to_metaspace() -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def _read_merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [
        tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in merges
    ]
