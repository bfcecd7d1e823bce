"""What an error holds beside its words: the frames it came through, with all their variables."""


def drop_frames(error: BaseException | None) -> None:
    """Have an error, and those before which it came, hold no frames any more.

    A turn's frames hold the turn, which holds its error: a ring, and with it stays the question,
    pictures and all, until the garbage collector comes.
    """
    while error is not None:
        error.__traceback__ = None
        error.__context__, error = None, error.__context__
