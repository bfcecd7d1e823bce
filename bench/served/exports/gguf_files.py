"""Writes the checkpoint as llama.cpp reads it: ``model.gguf`` and ``mmproj.gguf``, float32.

    python -m bench.served.exports.gguf_files CHECKPOINT FOLDER

llama.cpp's own converter has no way for CLIP in transformers' layout. Names and keys are those that
its loader asks for: ``src/llama-arch.cpp``, and ``tools/mtmd/clip-impl.h`` for the picture half.
"""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

Weights = dict[str, np.ndarray]

LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
VISION_LAYER_NAMES = {
    "layer_norm1": "ln1",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "layer_norm2": "ln2",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
}


def write_model(config: dict[str, Any], weights: Weights, folder: Path, output: Path) -> None:
    """The language model with its tokenizer."""
    text = config["text_config"]
    writer = gguf.GGUFWriter(output, "llama")
    writer.add_name("bench")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(text["vocab_size"])
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_rope_dimension_count(text["head_dim"])
    writer.add_rope_freq_base(text["rope_theta"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    add_tokenizer(writer, json.loads((folder / "tokenizer.json").read_text()), text)
    writer.add_chat_template((folder / "chat_template.jinja").read_text())
    base = "language_model.model."
    writer.add_tensor("token_embd.weight", weights[f"{base}embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights[f"{base}norm.weight"])
    writer.add_tensor("output.weight", weights["language_model.lm_head.weight"])
    for layer in range(text["num_hidden_layers"]):
        for theirs, ours in LAYER_NAMES.items():
            value = weights[f"{base}layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                value = interleave(value, text["num_attention_heads"])
            writer.add_tensor(f"blk.{layer}.{ours}.weight", value)
    write(writer)


def interleave(value: np.ndarray, num_heads: int) -> np.ndarray:
    """Rotary pairs side by side, as llama.cpp turns them, not half a head apart.

    Args:
        value: (heads * width, hidden).
        num_heads: heads.
    """
    rows, columns = value.shape
    halves = value.reshape(num_heads, 2, rows // num_heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def add_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict[str, Any], text: dict[str, Any]) -> None:
    """Llama's kind: the earlier a piece was learnt, the higher its score."""
    names = dict(tokenizer["model"]["vocab"])
    names.update({added["content"]: added["id"] for added in tokenizer["added_tokens"]})
    special = {added["id"] for added in tokenizer["added_tokens"]}
    pieces = sorted(names, key=lambda name: names[name])
    types = []
    for number, piece in enumerate(pieces):
        if number == 0:
            types.append(gguf.TokenType.UNKNOWN)
        elif number in special:
            types.append(gguf.TokenType.CONTROL)
        else:
            is_byte = len(piece) == 6 and piece.startswith("<0x")
            types.append(gguf.TokenType.BYTE if is_byte else gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.encode() for piece in pieces])
    writer.add_token_scores([-float(number) for number in range(len(pieces))])
    writer.add_token_types(types)
    writer.add_bos_token_id(text["bos_token_id"])
    writer.add_eos_token_id(text["eos_token_id"])
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(text["pad_token_id"])
    # The template writes <s> itself.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)


def write_projector(config: dict[str, Any], weights: Weights, folder: Path, output: Path) -> None:
    """The vision tower and the projector. Its reader leaves the last layer out by itself."""
    vision = config["vision_config"]
    pixels = json.loads((folder / "preprocessor_config.json").read_text())
    writer = gguf.GGUFWriter(output, "clip")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", False)
    numbers = {
        "image_size": vision["image_size"],
        "patch_size": vision["patch_size"],
        "embedding_length": vision["hidden_size"],
        "feed_forward_length": vision["intermediate_size"],
        "projection_dim": config["text_config"]["hidden_size"],
        "block_count": vision["num_hidden_layers"],
        "attention.head_count": vision["num_attention_heads"],
    }
    for name, number in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", pixels["image_mean"])
    writer.add_array("clip.vision.image_std", pixels["image_std"])
    tower = "vision_tower.vision_model."
    embeddings = f"{tower}embeddings."
    writer.add_tensor("v.class_embd", weights[f"{embeddings}class_embedding"])
    writer.add_tensor("v.patch_embd.weight", weights[f"{embeddings}patch_embedding.weight"])
    writer.add_tensor("v.position_embd.weight", weights[f"{embeddings}position_embedding.weight"])
    for part in ("weight", "bias"):
        # CLIP's own spelling.
        writer.add_tensor(f"v.pre_ln.{part}", weights[f"{tower}pre_layrnorm.{part}"])
        for theirs, ours in (("linear_1", "mm.0"), ("linear_2", "mm.2")):
            writer.add_tensor(f"{ours}.{part}", weights[f"multi_modal_projector.{theirs}.{part}"])
        for layer in range(vision["num_hidden_layers"]):
            for theirs, ours in VISION_LAYER_NAMES.items():
                value = weights[f"{tower}encoder.layers.{layer}.{theirs}.{part}"]
                writer.add_tensor(f"v.blk.{layer}.{ours}.{part}", value)
    write(writer)


def write(writer: gguf.GGUFWriter) -> None:
    """Put everything into the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(checkpoint: Path, folder: Path) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((checkpoint / "config.json").read_text())
    weights = load_file(checkpoint / "model.safetensors")
    write_model(config, weights, checkpoint, folder / "model.gguf")
    write_projector(config, weights, checkpoint, folder / "mmproj.gguf")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
