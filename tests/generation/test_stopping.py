"""Stop strings never show, whatever the pieces; text passes on as soon as it is certain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rung.data.stream_decoder import StreamDecoder
from rung.data.tokenizer import Tokenizer
from rung.generation.stopping import StopStrings, TextStream

small = st.text(alphabet="abc", max_size=12)


@given(st.lists(small, max_size=8), st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3))
def test_any_pieces_give_the_text_before_the_first_stop(pieces: list[str], stop: list[str]) -> None:
    watcher = StopStrings(stop)
    shown = ""
    whole = ""
    for piece in pieces:
        shown += watcher.push(piece)
        whole += piece
        if watcher.found:
            break
    places = [place for one in stop if (place := whole.find(one)) >= 0]
    assert watcher.found == bool(places)
    assert shown + ("" if watcher.found else watcher.finish()) == (whole[: min(places)] if places else whole)


def test_only_what_may_become_a_stop_is_held_back() -> None:
    watcher = StopStrings(["\nUser:"])
    assert watcher.push("Hello\n") == "Hello"
    assert watcher.push("Us") == ""
    assert watcher.push("ually\n") == "\nUsually"
    assert watcher.push("User: hi") == ""
    assert watcher.found
    assert watcher.push("more") == ""


def test_half_characters_wait_for_their_other_half(tokenizer: Tokenizer) -> None:
    stream = TextStream(StreamDecoder(tokenizer), ())
    first, second = tokenizer.encode("é")
    assert stream.push(first) == ""
    assert stream.push(second) == "é"
    assert stream.push(first) == ""
    assert stream.finish() == "\ufffd"
