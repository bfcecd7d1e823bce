"""Which erased chats a copy may bring back, and the account of it.

Contract: a chat does not return whose last word in the audit record is that it is erased, or that
the database which lies there knows to be erased, unless it is asked for, or was used after that:
then it was back already, by other means. The record says that a chat is back before it is; where it
then does not come, or a later copy does not have it, the record says that it is erased, unless the
process is killed before: the database that lies there may lack it for other reasons, and to go by
that would keep chats erased where a lost database is restored. What the database alone knows goes
on to the one in its place.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from llavachat_server.chats.audit import list_files
from llavachat_server.chats.sql.backup import Account, Choice, leave_out
from llavachat_server.chats.sql.files import give_to_owner
from llavachat_server.chats.tombstones import (
    ERASED,
    RESTORED,
    ChatName,
    LastWords,
    note,
    read_last_words,
)

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Returning(Account):
    """The account of one copy's coming back.

    Args:
        record: the folder of the audit record beside the database; need not be there.
        brings_back: what was erased is asked for.
    """

    def __init__(self, record: Path, *, brings_back: bool) -> None:
        self.record = record
        self._brings_back = brings_back
        self.has_record = True
        """Whether there is any."""
        self.has_readable = True
        """Whether the database that lies there can be read."""
        self.num_left_out = 0
        """Chats of the copy that stay erased."""
        self.num_brought_back = 0
        """Chats of the copy that were erased, and return."""
        self.num_used_since = 0
        """Chats of the copy that were back before it was made."""
        self._back: list[ChatName] = []
        self._gone: list[ChatName] = []

    def choose(
        self, chats: Mapping[ChatName, datetime], erased: Mapping[ChatName, datetime] | None
    ) -> Choice:
        """See `Account`.

        Raises:
            AuditError: a line of the record is not as it was written.
            OSError: it can not be read.
        """
        self.has_record = self.record.is_dir() and bool(list_files(self.record))
        self.has_readable = erased is not None
        there = erased or {}
        words = read_last_words(self.record) if self.has_record else LastWords()
        # Of what both know, the database's row is only not removed yet, unless it is a later one.
        alone = {
            name: time for name, time in there.items() if time > words.erased.get(name, _LONG_AGO)
        }
        known = {**words.erased, **alone}
        found = chats.keys() & known.keys()
        due = {name for name in found if chats[name] <= known[name]}
        self.num_used_since = len(found) - len(due)
        # As where the copy is what lay there before they were brought back.
        self._gone = sorted(words.restored - chats.keys()) if self.has_record else []
        # The copy may know of these as well, from when it was made: a start would tell it again.
        settled = {**words.erased, **dict.fromkeys(self._gone, datetime.now(UTC))}
        if not self._brings_back:
            self.num_left_out = len(due)
            return Choice(due, leave_out(chats.keys() - due, alone), settled)
        self.num_brought_back = len(due)
        self._back = sorted(due) if self.has_record else []
        return Choice((), leave_out(chats, alone), settled)

    def begin(self) -> None:
        """Write what the record will say; see `Account`.

        Raises:
            AuditError: the record can not be opened.
            OSError: it has no room.
        """
        # Before they are back: an erased chat that is there is accounted for.
        self._note(RESTORED, ERASED)

    def undo(self) -> None:
        """Take it back; see `Account` and `begin`."""
        self._note(ERASED, RESTORED)

    def _note(self, back: str, gone: str) -> None:
        words = [(back, name) for name in self._back] + [(gone, name) for name in self._gone]
        if not words:
            return
        try:
            note(self.record, words)
        finally:
            # However it ended: a file that was begun is the server's to go on with.
            for file in (self.record / "lock", *list_files(self.record)):
                if file.exists():
                    give_to_owner(file, self.record)
