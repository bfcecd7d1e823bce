"""How much of a prompt a step takes beside running answers. It knows seconds and counts."""

MIN_CHUNK_TOKENS = 8
"""A prompt always gets on, however tight the budget."""

MAX_STEP_SECONDS = 3.0
"""A prompt's step with no answer beside it, unless a single token takes more than half of that:
whoever comes, leaves or asks whether the engine lives waits for its end. On a large model and a
slow processor 256 tokens may take half a minute."""

_FIRST_GUESS_TOKENS = 64
_SMOOTHING = 0.2
_MOST_TIMES = 2.0
"""What a step of answers may count for, of what is known: a machine that stands still for seconds
within one would have prompts get as many in each step, and no step without a prompt would mend
that while prompts come."""


class GapBudget:
    """How many prompt tokens fit into a step, learnt from the steps before.

    Prompts get as much of a step's time as the answers in it, and more as long as the step stays
    within the gap: so the pause that they cause is short where few answers are running, and where
    many are, newcomers do not wait for ever.

    Args:
        gap_seconds: the longest pause that a prompt may cause in running answers, if a step
            without prompts takes at most half of it.
        max_tokens: prompt tokens of a step at most, however quick they are.
    """

    def __init__(self, gap_seconds: float, max_tokens: int) -> None:
        self._gap_seconds = gap_seconds
        self._max_tokens = max_tokens
        self._decode_seconds: dict[int, float] = {}
        self._token_seconds: float | None = None

    def count_tokens(self, num_decodes: int) -> int:
        """Prompt tokens that the next step may take beside so many running answers."""
        if not num_decodes and (self._token_seconds is None or not self._decode_seconds):
            # What a step takes by itself is not known, which small chunks would pay for many times.
            return self._max_tokens
        if self._token_seconds is None:
            return min(_FIRST_GUESS_TOKENS, self._max_tokens)
        longest_seconds = self._gap_seconds if num_decodes else MAX_STEP_SECONDS
        own_seconds = self._expect_decodes(max(1, num_decodes))
        left_seconds = max(longest_seconds - own_seconds, own_seconds)
        fitting = int(left_seconds / self._token_seconds)
        # Half blocks suit the kernels, and the budget is no more exact than that.
        return max(MIN_CHUNK_TOKENS, min(fitting // 8 * 8, self._max_tokens))

    def observe(self, num_decodes: int, num_prompt_tokens: int, seconds: float) -> None:
        """Learn from a step."""
        if num_prompt_tokens == 0:
            self._observe_decodes(num_decodes.bit_length(), seconds)
        elif num_prompt_tokens >= MIN_CHUNK_TOKENS:
            # A step reads all weights, whoever is in it: that much a single answer's step tells.
            level = self._find_level(max(1, num_decodes))
            if level and seconds < self._decode_seconds[level]:
                # Too much was believed of it, and what the prompt took can not be told from this.
                self._decode_seconds[level] = seconds
                if self._token_seconds is not None:
                    return
            own_seconds = seconds - self._expect_decodes(max(1, num_decodes))
            sample = max(own_seconds, 0.05 * seconds) / num_prompt_tokens
            known_token = self._token_seconds
            # Slower is believed at once, faster by and by: a gap too long is what is felt.
            if known_token is None or sample > known_token:
                self._token_seconds = sample
            else:
                self._token_seconds = known_token + _SMOOTHING * (sample - known_token)

    def _observe_decodes(self, level: int, seconds: float) -> None:
        known = self._decode_seconds.get(level)
        if known is not None:
            seconds = min(seconds, _MOST_TIMES * known)
            self._decode_seconds[level] = known + _SMOOTHING * (seconds - known)
            return
        if nearest := self._find_level(2**level - 1):
            # A level has twice the answers of the one before, which take twice as long at most.
            times = _MOST_TIMES * 2 ** max(0, level - nearest)
            seconds = min(seconds, times * self._decode_seconds[nearest])
        self._decode_seconds[level] = seconds

    def _expect_decodes(self, num_decodes: int) -> float:
        level = self._find_level(num_decodes)
        return self._decode_seconds[level] if level else 0.0

    def _find_level(self, num_decodes: int) -> int:
        # Of the last steps with about as many, to a factor of two; else with fewer, else with more.
        # 0: none was seen.
        level = num_decodes.bit_length()
        if not level or not self._decode_seconds:
            return 0
        fewer = [known for known in self._decode_seconds if known <= level]
        return max(fewer) if fewer else min(self._decode_seconds)
