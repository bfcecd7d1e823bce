"""The models' shapes, and what a step must read of them."""

from dataclasses import dataclass

from bench.served.workload import ANSWER_TOKENS, QUESTION_TOKENS, TEMPLATE_TOKENS

FORMS = ("bf16", "int8", "nf4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A LLaVA's shape; its vision tower is a CLIP over squares of `side_pixels`."""

    hidden: int
    inner: int
    layers: int
    heads: int
    vocabulary: int
    vision_hidden: int
    vision_inner: int
    vision_layers: int
    vision_heads: int
    side_pixels: int
    patch_pixels: int = 14

    @property
    def num_image_tokens(self) -> int:
        """Of one picture: its patches."""
        return (self.side_pixels // self.patch_pixels) ** 2

    @property
    def kept_bytes(self) -> int:
        """Keys and values of one token, 16 bits a number."""
        return self.layers * 2 * self.hidden * 2

    def count_weight_bytes(self, form: str) -> float:
        """What a step reads of the weights: all layers' matrices, and the head in 16 bits.

        Args:
            form: of `FORMS`. In int8 a row has a float32 scale; in nf4 64 numbers have one of
                8 bits, and 256 of those one of 32. Source: Dettmers et al., "QLoRA", 2023,
                section 3, double quantisation.
        """
        matrices = self.layers * (4 * self.hidden**2 + 3 * self.hidden * self.inner)
        rows = self.layers * (5 * self.hidden + 2 * self.inner)
        layers = {
            "bf16": 2.0 * matrices,
            "int8": 1.0 * matrices + 4.0 * rows,
            "nf4": matrices * (0.5 + (1 + 4 / 256) / 64),
        }[form]
        return layers + 2 * self.vocabulary * self.hidden

    def count_loaded_bytes(self, form: str) -> float:
        """What the weights take on the device: those of a step, the embedding and the tower.

        Args:
            form: of `FORMS`.
        """
        tower = self.vision_layers * (
            4 * self.vision_hidden**2 + 2 * self.vision_hidden * self.vision_inner
        )
        embedding = self.vocabulary * self.hidden
        return self.count_weight_bytes(form) + 2.0 * (tower + embedding)

    def find_limit(self, form: str, bandwidth: float, num_chats: int) -> float:
        """Tokens a second of all chats together that reading memory allows.

        A step reads the weights once for all chats, and the keys and values of each chat in the
        middle of its answer.

        Args:
            form: of `FORMS`.
            bandwidth: GB/s.
            num_chats: side by side.
        """
        kept = TEMPLATE_TOKENS + self.num_image_tokens + QUESTION_TOKENS + ANSWER_TOKENS // 2
        step_bytes = self.count_weight_bytes(form) + num_chats * kept * self.kept_bytes
        return num_chats * bandwidth * 1e9 / step_bytes


_CLIP_LARGE = {
    "vision_hidden": 1024,
    "vision_inner": 4096,
    "vision_layers": 24,
    "vision_heads": 16,
    "side_pixels": 336,
}
SIZES = {
    "7b": Size(hidden=4096, inner=11008, layers=32, heads=32, vocabulary=32064, **_CLIP_LARGE),
    "13b": Size(hidden=5120, inner=13824, layers=40, heads=40, vocabulary=32064, **_CLIP_LARGE),
    "tiny": Size(
        hidden=128,
        inner=256,
        layers=2,
        heads=2,
        vocabulary=4096,
        vision_hidden=64,
        vision_inner=128,
        vision_layers=2,
        vision_heads=2,
        side_pixels=56,
    ),
}
"""Source: ``config.json`` of ``llava-hf/llava-1.5-7b-hf`` and ``llava-1.5-13b-hf``. "tiny" is there
to try the benchmark itself on a machine without a GPU; its figures say nothing."""
