"""Trains the embedded model from nothing, from a fixed seed: ``python -m training.train``.

Two stages: the vision tower alone, then the whole model on chats. ``--practise CHECKPOINT`` goes on
with chats at lower rates instead, on a model that has been through both.
Prints stage, step, loss and elapsed seconds. A run that was cut off goes on from its run folder.
"""

import argparse
import ctypes
import os
import random
import shutil
import time
from pathlib import Path

import torch
from llavachat_server.engine.prompt import SYSTEM_PROMPT
from tokenizers import Tokenizer

from training.checkpoint import DEFAULT_FOLDER, load_weights, save_checkpoint
from training.dialogues import sample_chat
from training.joint_stage import ChatStage, train_jointly
from training.network import build_model
from training.team import Team, run_team
from training.tokenizer import train_tokenizer
from training.vision_stage import fit_heads, train_vision

SEED = 20
VISION_STEPS = 4500
JOINT_STEPS = 9400
PRACTICE_STEPS = 6000
_HEAD_STEPS = 150
_PRACTICE_RATE = 0.6
DEFAULT_PROCESSES = 2 if (os.cpu_count() or 1) > 1 else 1
"""As for the committed checkpoint: other shares of a batch add up to other last digits."""
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
"""Source: glibc's malloc.h."""
_CORPUS_CHATS = 3000
_SYSTEM_PROMPT_COPIES = 1500


def main() -> None:
    """Run every stage and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-folder", type=Path, default=Path("build/training"))
    parser.add_argument("--output", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--vision-steps", type=int, default=VISION_STEPS)
    parser.add_argument("--joint-steps", type=int, default=JOINT_STEPS)
    parser.add_argument("--practice-steps", type=int, default=PRACTICE_STEPS)
    parser.add_argument(
        "--practise", type=Path, metavar="CHECKPOINT", help="go on with chats, on this"
    )
    parser.add_argument("--export-every-seconds", type=float, default=600)
    parser.add_argument(
        "--processes", type=int, default=DEFAULT_PROCESSES, help="that train together"
    )
    options = parser.parse_args()
    options.run_folder.mkdir(parents=True, exist_ok=True)
    # Kept, so that a run that goes on cannot read its own past differently.
    tokenizer_path = options.run_folder / "tokenizer.json"
    if not tokenizer_path.exists() and options.practise:
        shutil.copyfile(options.practise / "tokenizer.json", tokenizer_path)
    elif not tokenizer_path.exists():
        learn_tokenizer(SEED).save(str(tokenizer_path))
    run_team(options.processes, train, options)


def train(team: Team, options: argparse.Namespace) -> None:
    """One process's part of the run."""
    torch.set_num_threads(1)
    keep_freed_memory()

    def log(line: str) -> None:
        if team.is_leader:
            print(time.strftime("%H:%M:%S"), line, flush=True)

    tokenizer = Tokenizer.from_file(str(options.run_folder / "tokenizer.json"))
    model = build_model(SEED)

    def export() -> None:
        save_checkpoint(model, tokenizer, options.output)
        log(f"wrote {options.output}")

    if options.practise:
        model.load_state_dict(load_weights(options.practise))
        heads = fit_heads(model, seed=SEED, num_steps=_HEAD_STEPS, log=log, team=team)
        stage = ChatStage("practice", SEED + 1, options.practice_steps, _PRACTICE_RATE, 1.0)
    else:
        heads = train_vision(
            model,
            seed=SEED,
            num_steps=options.vision_steps,
            run_folder=options.run_folder,
            log=log,
            team=team,
        )
        stage = ChatStage("joint", SEED, options.joint_steps)
    train_jointly(
        model,
        heads,
        tokenizer,
        stage,
        run_folder=options.run_folder,
        log=log,
        export=export,
        export_every_seconds=options.export_every_seconds,
        team=team,
    )
    if team.is_leader:
        export()


def learn_tokenizer(seed: int) -> Tokenizer:
    """Learn the merges from the text of made-up chats."""
    texts = [f"{SYSTEM_PROMPT} USER: "] * _SYSTEM_PROMPT_COPIES
    for index in range(_CORPUS_CHATS):
        chat = sample_chat(random.Random(f"corpus {seed} {index}"), draw=False)
        if chat.system_prompt:
            texts.append(chat.system_prompt)
        for turn in chat.turns:
            texts += [f"USER: {turn.question} ASSISTANT:", turn.answer]
    return train_tokenizer(texts)


def keep_freed_memory() -> None:
    """Tell glibc to reuse freed memory instead of giving it back at every step.

    Every step frees and takes the same hundreds of MB; returning them costs a fifth of the time.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # not glibc: only slower
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28)):
        mallopt(option, value)


if __name__ == "__main__":
    main()
