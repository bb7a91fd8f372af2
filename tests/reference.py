"""A slow and obvious parser, written clause by clause from the WHATWG standard, to check the fast one against.

It follows "Parsing an event stream" and "Interpreting an event stream" in the section "Server-sent events" of HTML and
works on a whole stream at once. Where DESIGN.md asks for more than the standard, a comment says so.
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

RETRY_CAP = 2**31 - 1


class Outcome(NamedTuple):
    """What a stream comes to: its events and the state after them."""

    events: list[tuple[str, str, str, int | None]]
    last_event_id: str
    retry: int | None
    comments: list[str]
    limit: int | None
    """The limit that a block outgrew, after which nothing counts, else None."""


def decode(stream: bytes | str) -> str:
    """Decode as "UTF-8 decode" does, but for a BOM; a character that is not complete at the end is left out."""
    if isinstance(stream, str):
        return stream
    return codecs.getincrementaldecoder("utf-8")("replace").decode(stream)


def split_lines(text: str) -> tuple[list[str], str]:
    """Return the complete lines without their ends, and the beginning of one that is not complete."""
    *lines, rest = re.split("\r\n|\n|\r", text)
    return lines, rest


def parse(stream: bytes | str, last_event_id: str = "", max_event_size: int | None = None) -> Outcome:
    """Parse a whole stream."""
    # "strip one leading U+FEFF BYTE ORDER MARK character, if any are present"
    lines, rest = split_lines(decode(stream).removeprefix("\ufeff"))

    events: list[tuple[str, str, str, int | None]] = []
    comments: list[str] = []
    retry: int | None = None

    data_buffer = ""
    event_type_buffer = ""
    last_event_id_buffer = last_event_id
    retry_of_block: int | None = None  # DESIGN: an event tells the `retry` of its own block

    def outgrown(line: str) -> bool:
        """DESIGN: a block may hold so many characters, those of the line being read included."""
        return max_event_size is not None and len(line) + len(data_buffer) > max_event_size

    for line in lines:
        if outgrown(line):
            return Outcome(events, last_event_id, retry, comments, max_event_size)

        # "If the line is empty (a blank line): Dispatch the event"
        if line == "":
            # "Set the last event ID string of the event source to the value of the last event ID buffer."
            last_event_id = last_event_id_buffer
            # "If the data buffer is an empty string, set the data buffer and the event type buffer to the empty string
            # and return."
            if data_buffer != "":
                # "If the data buffer's last character is a U+000A LINE FEED (LF) character, then remove [it]"
                if data_buffer[-1] == "\n":
                    data_buffer = data_buffer[:-1]
                # "...initialize event's type attribute to "message", data to data, ... lastEventId to the last event
                # ID string ... If the event type buffer has a value other than the empty string, change the type"
                events.append((event_type_buffer or "message", data_buffer, last_event_id, retry_of_block))
            data_buffer = ""
            event_type_buffer = ""
            retry_of_block = None
            continue

        # "If the line starts with a U+003A COLON character (:): Ignore the line." DESIGN: but report it
        if line[0] == ":":
            comment = line[1:]
            comments.append(comment[1:] if comment[:1] == " " else comment)
            continue

        # "If the line contains a U+003A COLON character (:)", else "the whole line as the field name, and the empty
        # string as the field value"
        field, colon, value = line.partition(":")
        # "If value starts with a U+0020 SPACE character, remove it from value."
        if colon and value[:1] == " ":
            value = value[1:]

        # "Field names must be compared literally, with no case folding performed."
        if field == "event":
            event_type_buffer = value
        elif field == "data":
            data_buffer += value + "\n"
        elif field == "id":
            # "If the field value does not contain U+0000 NULL"
            if "\0" not in value:
                last_event_id_buffer = value
        elif field == "retry":
            # "If the field value consists of only ASCII digits"; browsers agree that none at all are not enough
            if value != "" and all(character in "0123456789" for character in value):
                number = 0
                for character in value:
                    number = min(10 * number + int(character), RETRY_CAP)
                retry = retry_of_block = number
        else:
            pass  # "Otherwise: The field is ignored."

    # "Once the end of the file is reached, any pending data must be discarded." It still must not outgrow the limit.
    return Outcome(events, last_event_id, retry, comments, max_event_size if outgrown(rest) else None)
