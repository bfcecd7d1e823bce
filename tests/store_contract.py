"""What every store promises, as tests: each store's test file makes a class of its own from it.

The subclass has a fixture `store` that gives an empty store.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from llavachat_server.chats.errors import NotFound, TurnRunning
from llavachat_server.chats.pixels import read_png
from llavachat_server.chats.record import Chat, RequestClaim, TurnState
from llavachat_server.chats.store import MAX_PAGE_BYTES, ChatQuery, ChatStore, IdleChat
from llavachat_server.values import FinishReason
from store_records import NOON, end, make_chat, make_id, make_import, make_picture, make_turn


def summarise(chats: tuple[Any, ...]) -> list[Any]:
    """A listing's chats, whichever form a store gives."""
    return [chat.summarise() if isinstance(chat, Chat) else chat for chat in chats]


class StoreContract:
    """See the module."""

    async def test_keeps_a_chat_as_it_was_given(self, store: ChatStore) -> None:
        """Every field of chat, turn and picture comes back equal."""
        first, second = make_picture(1), make_picture(2)
        chat = make_chat(system_prompt="Be brief.", labels={"user": "7", "é": "\0\x1a1"})
        turn = make_turn("Wer ist das? 猫\0\x1a0", (first.info, second.info, first.info))
        claim = RequestClaim("ada", "request-1", "a" * 64, chat.id, turn.id)
        await store.begin_chat(chat, turn, (first, second), claim)
        assert replace(chat, turns=(turn,)) == await store.get_chat("ada", chat.id)
        assert claim == await store.find_claim("ada", "request-1")
        kept = await store.get_picture("ada", second.info.id)
        assert second.info == kept.info
        assert second.pixels.tobytes() == kept.pixels.tobytes()

    async def test_has_no_chat_that_nobody_could_name_so(self, store: ChatStore) -> None:
        """Whatever characters an unknown id has, there is no such chat."""
        for chat_id in ("", "x", "0" * 128, "\0", "x\0\x1a", "é 猫", "%' --"):
            with pytest.raises(NotFound):
                await store.get_chat("ada", chat_id)
            with pytest.raises(NotFound):
                await store.begin_turn("ada", chat_id, make_turn(), (), None)
            with pytest.raises(NotFound):
                await store.finish_turn("ada", chat_id, end(make_turn()))
            with pytest.raises(NotFound):
                await store.delete_chat("ada", chat_id)

    async def test_keeps_the_end_of_a_turn(self, store: ChatStore) -> None:
        """The running turn is replaced by its end, in its place."""
        chat, turn = make_chat(), make_turn()
        await store.begin_chat(chat, turn, (), None)
        ended = end(turn, "Eine Katze.\0", FinishReason.STOP_SEQUENCE)
        await store.finish_turn("ada", chat.id, ended)
        kept = await store.get_chat("ada", chat.id)
        assert (ended,) == kept.turns
        assert ended.finished_at == kept.updated_at

    async def test_keeps_no_end_of_a_turn_that_it_does_not_have(self, store: ChatStore) -> None:
        """Whoever does not know whether a turn was kept may end it; the chat is as it was."""
        chat, turn = make_chat(), make_turn()
        await store.begin_chat(chat, turn, (), None)
        with pytest.raises(NotFound):
            await store.finish_turn("ada", chat.id, end(make_turn(minutes=9)))
        assert replace(chat, turns=(turn,)) == await store.get_chat("ada", chat.id)

    async def test_keeps_an_empty_system_prompt_apart_from_none(self, store: ChatStore) -> None:
        """The empty text means "none", no text means "the model's own"."""
        chat = make_chat(system_prompt="")
        await store.begin_chat(chat, make_turn(), (), None)
        assert (await store.get_chat("ada", chat.id)).system_prompt == ""

    async def test_keeps_turns_in_the_order_in_which_they_were_asked(
        self, store: ChatStore
    ) -> None:
        """A tree keeps its order and its parents, whatever the clock says."""
        chat = make_chat()
        first = make_turn("one", minutes=5)
        await store.begin_chat(chat, first, (), None)
        await store.finish_turn("ada", chat.id, end(first))
        second = make_turn("two", parent_id=first.id, minutes=4)
        branch = make_turn("three", parent_id=first.id, minutes=3)
        for turn in (second, branch):
            await store.begin_turn("ada", chat.id, turn, (), None)
            await store.finish_turn("ada", chat.id, end(turn))
        kept = await store.get_chat("ada", chat.id)
        assert ["one", "two", "three"] == [turn.prompt for turn in kept.turns]
        assert [None, first.id, first.id] == [turn.parent_id for turn in kept.turns]
        assert NOON + timedelta(minutes=6) == kept.updated_at

    async def test_runs_one_turn_at_a_time_in_a_chat(self, store: ChatStore) -> None:
        """A second turn is refused until the first has ended."""
        chat, first, second = make_chat(), make_turn(), make_turn()
        await store.begin_chat(chat, first, (), None)
        with pytest.raises(TurnRunning):
            await store.begin_turn("ada", chat.id, second, (), None)
        await store.finish_turn("ada", chat.id, end(first))
        await store.begin_turn("ada", chat.id, second, (), None)
        states = [turn.state for turn in (await store.get_chat("ada", chat.id)).turns]
        assert [TurnState.FINISHED, TurnState.RUNNING] == states

    async def test_refuses_one_of_two_turns_at_once(self, store: ChatStore) -> None:
        """Also when both come before either is written."""
        chat, first = make_chat(), make_turn()
        await store.begin_chat(chat, first, (), None)
        await store.finish_turn("ada", chat.id, end(first))
        results = await asyncio.gather(
            *(store.begin_turn("ada", chat.id, make_turn(), (), None) for _ in range(5)),
            return_exceptions=True,
        )
        assert 4 == sum(isinstance(result, TurnRunning) for result in results)
        assert 2 == len((await store.get_chat("ada", chat.id)).turns)

    async def test_keeps_a_whole_chat_at_once(self, store: ChatStore) -> None:
        """Turns, branches, builds and pictures of an imported chat come back equal."""
        first, second = make_picture(6), make_picture(7)
        chat = make_import(first, second)
        await store.add_chat(chat, (first, second))
        assert chat == await store.get_chat("ada", chat.id)
        (summary,) = (await store.list_chats("ada", ChatQuery(labels={"k": "v"}))).chats
        assert (3, chat.turns[0].prompt) == (summary.num_turns, summary.opening)
        info, png = await store.get_png("ada", second.info.id)
        assert second.info == info
        assert second.pixels.tobytes() == read_png(png).tobytes()
        await store.begin_turn("ada", chat.id, make_turn(parent_id=chat.turns[1].id), (), None)
        with pytest.raises(NotFound):
            await store.get_png("bob", second.info.id)

    async def test_tells_turns_and_branches_apart_from_their_chat(self, store: ChatStore) -> None:
        """One turn, the first one, the turns down to one, and down to the latest finished."""
        pictures = make_picture(6), make_picture(7)
        chat = make_import(*pictures)
        one, two, cut = chat.turns
        await store.add_chat(chat, pictures)
        for turn in chat.turns:
            assert turn == await store.get_turn("ada", chat.id, turn.id)
        assert replace(chat, turns=(one,)) == await store.get_opening("ada", chat.id)
        for leaf, branch in (
            (one.id, (one,)),
            (two.id, (one, two)),
            (cut.id, (one, cut)),
            (None, (one, two)),
        ):
            kept = await store.get_branch("ada", chat.id, leaf)
            assert replace(chat, turns=branch) == kept
            if leaf is not None:
                ids = await store.get_branch_ids("ada", chat.id, leaf)
                assert tuple(turn.id for turn in branch) == ids
        for picture in pictures:
            assert picture.info == await store.get_image("ada", picture.info.id)
        # A child may be asked long after its parent, and the clock may have gone back.
        late = make_turn("And then?", parent_id=one.id, minutes=-5, num_trimmed_turns=1)
        await store.begin_turn("ada", chat.id, late, (), None)
        assert (one.id, late.id) == await store.get_branch_ids("ada", chat.id, late.id)
        assert (one, late) == (await store.get_branch("ada", chat.id, late.id)).turns
        assert (one, two) == (await store.get_branch("ada", chat.id, None)).turns

    async def test_has_no_branch_where_nothing_is_finished(self, store: ChatStore) -> None:
        """A chat whose only turn runs has an opening, and nothing to go on from."""
        chat, turn = make_chat(), make_turn()
        await store.begin_chat(chat, turn, (), None)
        assert chat == await store.get_branch("ada", chat.id, None)
        assert (turn,) == (await store.get_branch("ada", chat.id, turn.id)).turns
        assert (turn,) == (await store.get_opening("ada", chat.id)).turns

    async def test_finds_no_turn_that_is_not_of_the_chat(self, store: ChatStore) -> None:
        """Neither an unknown one, nor another chat's, nor in a chat that is not there."""
        chat, other, turn = make_chat(), make_chat(), make_turn()
        await store.begin_chat(chat, make_turn(), (), None)
        await store.begin_chat(other, turn, (), None)
        for tenant, chat_id, kind in (("ada", chat.id, "turn"), ("bob", other.id, "chat")):
            for read in (store.get_turn, store.get_branch, store.get_branch_ids):
                for turn_id in (turn.id, "x\0"):
                    with pytest.raises(NotFound, match=f"no such {kind}"):
                        await read(tenant, chat_id, turn_id)
        with pytest.raises(NotFound, match="no such chat"):
            await store.get_opening("bob", other.id)
        with pytest.raises(NotFound, match="no such image"):
            await store.get_image("ada", "0" * 64)

    async def test_a_whole_chat_shares_pictures_with_others(self, store: ChatStore) -> None:
        """A picture that is kept already is kept once, and stays while anybody uses it."""
        first, second = make_picture(6), make_picture(7)
        other = make_chat()
        await store.begin_chat(other, make_turn(images=(first.info,)), (first,), None)
        chat = make_import(first, second)
        await store.add_chat(chat, (first, second))
        await store.delete_chat("ada", chat.id)
        assert first.info == (await store.get_picture("ada", first.info.id)).info
        with pytest.raises(NotFound):
            await store.get_png("ada", second.info.id)

    async def test_shows_nothing_to_another_tenant(self, store: ChatStore) -> None:
        """Another tenant's chat, picture and request do not exist."""
        picture, chat, turn = make_picture(9), make_chat(), make_turn()
        turn = replace(turn, images=(picture.info,))
        claim = RequestClaim("ada", "r", "a" * 64, chat.id, turn.id)
        await store.begin_chat(chat, turn, (picture,), claim)
        with pytest.raises(NotFound):
            await store.get_chat("bob", chat.id)
        with pytest.raises(NotFound):
            await store.get_picture("bob", picture.info.id)
        with pytest.raises(NotFound):
            await store.begin_turn("bob", chat.id, make_turn(), (), None)
        with pytest.raises(NotFound):
            await store.finish_turn("bob", chat.id, end(turn))
        with pytest.raises(NotFound):
            await store.delete_chat("bob", chat.id)
        assert await store.find_claim("bob", "r") is None
        assert () == (await store.list_chats("bob", ChatQuery())).chats

    async def test_erases_a_chat_with_its_claims(self, store: ChatStore) -> None:
        """Nothing of an erased chat is found."""
        chat, turn = make_chat(labels={"a": "b"}), make_turn()
        claim = RequestClaim("ada", "r", "a" * 64, chat.id, turn.id)
        await store.begin_chat(chat, turn, (), claim)
        await store.delete_chat("ada", chat.id)
        with pytest.raises(NotFound):
            await store.get_chat("ada", chat.id)
        with pytest.raises(NotFound):
            await store.finish_turn("ada", chat.id, end(turn))
        assert await store.find_claim("ada", "r") is None
        assert () == (await store.list_chats("ada", ChatQuery(labels={"a": "b"}))).chats

    async def test_retires_a_chat_that_is_as_it_was_found(self, store: ChatStore) -> None:
        """One that is answered, was used since, or is another tenant's stays."""
        picture, chat = make_picture(8), make_chat()
        first, second = make_turn(images=(picture.info,)), make_turn(minutes=-9)
        await store.begin_chat(chat, first, (picture,), None)
        found = IdleChat("ada", chat.id, end(first).finished_at or NOON, 1)
        assert not await store.retire_chat(replace(found, updated_at=chat.updated_at))
        await store.finish_turn("ada", chat.id, end(first))
        await store.begin_turn("ada", chat.id, second, (), None)
        await store.finish_turn("ada", chat.id, end(second))
        assert not await store.retire_chat(found)
        assert not await store.retire_chat(replace(found, updated_at=NOON, num_turns=2))
        with pytest.raises(NotFound):
            await store.retire_chat(replace(found, tenant="bob", num_turns=2))
        assert 2 == len((await store.get_chat("ada", chat.id)).turns)
        assert await store.retire_chat(replace(found, num_turns=2))
        with pytest.raises(NotFound):
            await store.get_chat("ada", chat.id)
        with pytest.raises(NotFound):
            await store.get_picture("ada", picture.info.id)

    async def test_erases_pictures_that_no_other_chat_uses(self, store: ChatStore) -> None:
        """A picture stays while a chat of the tenant uses it, and goes with the last."""
        shared, own = make_picture(3), make_picture(4)
        both = make_turn(images=(shared.info, own.info))
        one, other = make_chat(), make_chat()
        await store.begin_chat(one, both, (shared, own), None)
        await store.begin_chat(other, make_turn(images=(shared.info,)), (shared,), None)
        await store.delete_chat("ada", one.id)
        with pytest.raises(NotFound):
            await store.get_picture("ada", own.info.id)
        assert shared.info.id == (await store.get_picture("ada", shared.info.id)).info.id
        await store.delete_chat("ada", other.id)
        with pytest.raises(NotFound):
            await store.get_picture("ada", shared.info.id)

    async def test_keeps_a_picture_again_after_it_was_erased(self, store: ChatStore) -> None:
        """A chat may bring a picture that another chat took along when it was erased."""
        picture = make_picture(5)
        turn = make_turn(images=(picture.info,))
        first, second = make_chat(), make_chat()
        await store.begin_chat(first, turn, (picture,), None)
        known = await store.get_picture("ada", picture.info.id)
        await store.delete_chat("ada", first.id)
        await store.begin_chat(second, replace(turn, id=make_id()), (known,), None)
        assert picture.info == (await store.get_picture("ada", picture.info.id)).info

    async def test_keeps_the_files_of_pictures(self, store: ChatStore) -> None:
        """The first that was kept is told, each goes with the last chat that brought it."""
        photo = make_picture(11)
        files = [replace(photo.info, media_type=f"image/{name}") for name in ("jpeg", "webp")]
        chats = [make_chat(), make_chat(), make_chat()]
        for chat, info, file in zip(
            chats, (*files, files[1]), (b"first", b"second", b"second"), strict=True
        ):
            picture = replace(photo, info=info, original=file)
            await store.begin_chat(chat, make_turn(images=(info,)), (picture,), None)
        assert (files[0], b"first") == await store.get_original("ada", photo.info.id)
        with pytest.raises(NotFound):
            await store.get_original("bob", photo.info.id)
        for gone in chats[:2]:
            await store.delete_chat("ada", gone.id)
            assert (files[1], b"second") == await store.get_original("ada", photo.info.id)
        await store.delete_chat("ada", chats[2].id)
        with pytest.raises(NotFound):
            await store.get_original("ada", photo.info.id)

    async def test_keeps_the_files_of_tenants_apart(self, store: ChatStore) -> None:
        """The same file of two is each one's own, and stays when the other's goes."""
        photo = replace(make_picture(14), original=b"the same")
        chats = {tenant: make_chat(tenant) for tenant in ("ada", "bob")}
        for chat in chats.values():
            await store.begin_chat(chat, make_turn(images=(photo.info,)), (photo,), None)
        await store.delete_chat("ada", chats["ada"].id)
        with pytest.raises(NotFound):
            await store.get_original("ada", photo.info.id)
        assert (photo.info, b"the same") == await store.get_original("bob", photo.info.id)

    async def test_keeps_no_file_that_it_was_not_given(self, store: ChatStore) -> None:
        """A picture of which only pixels are kept has none; an imported one may have."""
        pixels, file = make_picture(12), replace(make_picture(13), original=b"a file")
        chat = make_import(pixels, file)
        await store.add_chat(chat, (pixels, file))
        assert (file.info, b"a file") == await store.get_original("ada", file.info.id)
        for image_id in (pixels.info.id, "0" * 64):
            with pytest.raises(NotFound) as caught:
                await store.get_original("ada", image_id)
            assert "no file of such a picture is kept" == str(caught.value)

    async def test_ends_a_page_early_where_its_chats_are_large(self, store: ChatStore) -> None:
        """With the one that makes it so; the next page goes on behind it, and none is left out."""
        system_prompt = "\U0001f600" * (MAX_PAGE_BYTES // 8)
        chats = [make_chat(minutes=-number, system_prompt=system_prompt) for number in range(5)]
        for chat in chats:
            await store.begin_chat(chat, make_turn(), (), None)
        pages, mark = [], None
        while not pages or mark is not None:
            page = await store.list_chats("ada", ChatQuery(limit=1000, after=mark))
            pages.append([chat.id for chat in page.chats])
            mark = page.next
        ids = [chat.id for chat in chats]
        assert [ids[:2], ids[2:4], ids[4:]] == pages

    async def test_lists_pages_by_last_use(self, store: ChatStore) -> None:
        """Pages together hold every chat once, the most recently used first."""
        chats = [make_chat(minutes=index // 2) for index in range(7)]
        for chat in chats:
            await store.begin_chat(chat, make_turn(f"of {chat.id}"), (), None)
        expected = sorted(chats, key=lambda chat: (chat.updated_at, chat.id), reverse=True)
        seen, mark = [], None
        while True:
            page = await store.list_chats("ada", ChatQuery(limit=3, after=mark))
            seen += summarise(page.chats)
            mark = page.next
            if mark is None:
                break
        assert [chat.id for chat in expected] == [chat.id for chat in seen]
        assert [f"of {chat.id}" for chat in expected] == [chat.opening for chat in seen]
        assert {1} == {chat.num_turns for chat in seen}

    async def test_lists_by_label_and_time(self, store: ChatStore) -> None:
        """All labels of one's own chats must match; a time has its beginning, and not its end."""
        by_name = {}
        for minute, labels in enumerate(({"k": "1"}, {"k": "1", "m": "2"}, {"k": "2"})):
            by_name[minute] = make_chat(minutes=minute, labels=labels)
            await store.begin_chat(by_name[minute], make_turn(), (), None)
        await store.begin_chat(make_chat("bob", labels={"k": "1"}), make_turn(), (), None)

        async def find(**query: Any) -> list[str]:
            found = await store.list_chats("ada", ChatQuery(**query))
            return [chat.id for chat in found.chats]

        assert [by_name[1].id, by_name[0].id] == await find(labels={"k": "1"})
        assert [by_name[1].id] == await find(labels={"k": "1", "m": "2"})
        assert [] == await find(labels={"k": "2", "m": "2"})
        assert [by_name[2].id, by_name[1].id] == await find(
            updated_since=NOON + timedelta(minutes=1)
        )
        assert [by_name[0].id] == await find(updated_before=NOON + timedelta(minutes=1))

    async def test_keeps_the_claims_of_tenants_apart(self, store: ChatStore) -> None:
        """Two may take the same request_id, and neither loses its own by it."""
        claims = []
        for tenant in ("ada", "bob"):
            chat, turn = make_chat(tenant), make_turn()
            claims.append(RequestClaim(tenant, "r", "a" * 64, chat.id, turn.id))
            await store.begin_chat(chat, turn, (), claims[-1])
        assert claims == [await store.find_claim(tenant, "r") for tenant in ("ada", "bob")]

    async def test_takes_a_claim_over(self, store: ChatStore) -> None:
        """The last turn that a request became is the one that is found."""
        chat, first, second = make_chat(), make_turn(), make_turn()
        claims = [RequestClaim("ada", "r", "a" * 64, chat.id, turn.id) for turn in (first, second)]
        await store.begin_chat(chat, first, (), claims[0])
        await store.finish_turn("ada", chat.id, end(first))
        await store.begin_turn("ada", chat.id, second, (), claims[1])
        assert claims[1] == await store.find_claim("ada", "r")
