"""What a request must be before it comes near the generation loop.

One bad value in the loop ends it for everybody, so everything is looked at here. Pure.
"""

import math
from dataclasses import dataclass

from llavachat_server.engine.prompt import SpecialTokens
from llavachat_server.engine.sampling import validate_sampling
from llavachat_server.values import ContextFull, EngineRequest, InvalidField


@dataclass(frozen=True, slots=True)
class Gate:
    """The limits of a loaded model.

    Args:
        context_tokens: prompt and answer together.
        num_image_tokens: of one picture.
        max_images: different pictures that fit into the bank.
        max_tokens: the longest answer of the profile.
        vocab_size: rows of the output head.
        special: the structural ids.
        silent_ids: ids that are no text.
    """

    context_tokens: int
    num_image_tokens: int
    max_images: int
    max_tokens: int
    vocab_size: int
    special: SpecialTokens
    silent_ids: frozenset[int]

    def check(self, request: EngineRequest) -> None:
        """Let a good request pass.

        Raises:
            InvalidField: names the field and what is allowed.
            ContextFull: the prompt leaves no room for one token.
        """
        if not request.request_id:
            raise InvalidField("request_id", "must not be empty")
        limit = request.time_limit_seconds
        if not (math.isfinite(limit) and limit > 0):
            raise InvalidField("time_limit_seconds", "must be over 0")
        validate_sampling(request.sampling, max_tokens=self.max_tokens, vocab_size=self.vocab_size)
        self._check_token_ids(request)
        self._check_images(request)
        image_tokens = len(request.images) * self.num_image_tokens
        text_tokens = len(request.token_ids) - len(request.images)
        if text_tokens + image_tokens >= self.context_tokens:
            raise ContextFull(text_tokens, image_tokens, self.context_tokens)

    def _check_token_ids(self, request: EngineRequest) -> None:
        ids = request.token_ids
        if len(ids) < 2 or ids[0] != self.special.bos:
            raise InvalidField(
                "token_ids", "must begin with the beginning-of-sequence token and go on"
            )
        padding = self.silent_ids - {self.special.image, self.special.bos}
        for token_id in ids:
            if type(token_id) is not int or not 0 <= token_id < self.vocab_size:
                raise InvalidField("token_ids", f"must be whole numbers 0 to {self.vocab_size - 1}")
            if token_id in padding:
                raise InvalidField("token_ids", "must not hold padding")
        if ids[-1] == self.special.image:
            raise InvalidField("token_ids", "must not end with a picture")

    def _check_images(self, request: EngineRequest) -> None:
        num_places = request.token_ids.count(self.special.image)
        if num_places != len(request.images):
            raise InvalidField(
                "images",
                f"the prompt has {num_places} places for pictures, "
                f"and {len(request.images)} pictures came",
            )
        if len(request.images) > self.max_images:
            raise InvalidField("images", f"at most {self.max_images} pictures")
