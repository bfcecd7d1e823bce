"""The checkpoint in the repository: small, loadable without trust, and what training trains."""

import torch
from llavachat_server.engine.prompt import SYSTEM_PROMPT
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from torch.nn import functional as F
from transformers import AutoProcessor, LlavaForConditionalGeneration

from training.checkpoint import DEFAULT_FOLDER, MAX_FOLDER_BYTES
from training.network import (
    IMAGE_TOKEN_ID,
    NUM_IMAGE_TOKENS,
    PAD_TOKEN_ID,
    build_model,
    cast_weights,
    encode_images,
    project_features,
    read_text,
)


def test_folder_is_small() -> None:
    """Everything together stays within 8 MB."""
    total_bytes = sum(path.stat().st_size for path in DEFAULT_FOLDER.iterdir())
    assert total_bytes <= MAX_FOLDER_BYTES


def test_loads_as_llava() -> None:
    """transformers loads model and processor, and the template is Vicuna's."""
    model = LlavaForConditionalGeneration.from_pretrained(DEFAULT_FOLDER)
    processor = AutoProcessor.from_pretrained(DEFAULT_FOLDER)
    assert torch.bfloat16 == model.dtype
    assert IMAGE_TOKEN_ID == model.config.image_token_id
    question = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    turns = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": [{"type": "text", "text": "It is a star."}]},
        {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
    ]
    expected = (
        f"<s>{SYSTEM_PROMPT} USER: <image>\nWhat is it? ASSISTANT: It is a star.</s>"
        "USER: Where? ASSISTANT:"
    )
    assert expected == processor.apply_chat_template(turns, add_generation_prompt=True)


def test_any_text_survives_the_tokenizer() -> None:
    """Bytes stand in for what the merges do not know, and streams decode to the same text."""
    tokenizer = Tokenizer.from_file(str(DEFAULT_FOLDER / "tokenizer.json"))
    for text in ("It is a big red circle.", "café 漢字 🙂", "tabs\tand\nlines", "  two  spaces "):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert text == tokenizer.decode(ids)
        stream = DecodeStream(skip_special_tokens=True)
        streamed = "".join(stream.step(tokenizer, token) or "" for token in ids)
        assert text.strip() == streamed.strip()


def test_training_computes_what_transformers_computes() -> None:
    """The fast forward pass and the true model agree in float32."""
    model = build_model(3).eval()
    token_ids = torch.randint(3, 1000, (2, 90))
    token_ids[:, 10 : 10 + NUM_IMAGE_TOKENS] = IMAGE_TOKEN_ID
    pixels = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = model(
            input_ids=token_ids,
            pixel_values=pixels,
            attention_mask=(token_ids != PAD_TOKEN_ID).long(),
        ).logits
        weights = cast_weights(model, torch.float32)
        features = project_features(weights, encode_images(weights, pixels, model.config))
        positions = torch.arange(90).expand(2, -1)
        hidden = read_text(weights, token_ids, positions, features.flatten(0, 1), model.config)
        actual = F.linear(hidden, weights["lm_head.weight"]).view_as(expected)
    assert torch.allclose(expected, actual, atol=1e-4)
