"""What one contender's process is told to do."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from llavachat_server.values import Quantization


@dataclass(frozen=True, slots=True)
class Task:
    """What a process is to do.

    Args:
        size: of `SIZES`.
        form: of `FORMS`.
        device: "cuda" or "cpu".
        seed: names the round; see `Workload`.
        chats: how many side by side, one row each.
        answer_tokens: length of an answer.
        repeats: of each measurement that takes one chat.
    """

    size: str
    form: str
    device: str
    seed: str
    chats: tuple[int, ...]
    answer_tokens: int
    repeats: int

    @property
    def settings(self) -> dict[str, Any]:
        """Of `EngineSettings`; a quantised model computes in what the server chooses for it."""
        if self.form == "bf16":
            return {"dtype": "bfloat16", "device": self.device}
        return {"quantization": Quantization(self.form), "device": self.device}

    def write(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> "Task":
        """What `write` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "chats": tuple(fields["chats"])})
