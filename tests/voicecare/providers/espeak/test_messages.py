"""The messages between the server and the espeak worker."""

import pytest

from voicecare.providers.espeak import messages


@pytest.mark.parametrize("cut", [1, 5, 9, 10, 100])
def test_messages_are_parsed_from_partial_reads(cut):
    sent = messages.pack(messages.AUDIO, 7, b"x" * 30) + messages.pack(messages.END, 7) + messages.pack_credit(9, 1234)
    parser = messages.MessageParser()
    got = [message for at in range(0, len(sent), cut) for message in parser.feed(sent[at : at + cut])]
    assert got[:2] == [(messages.AUDIO, 7, b"x" * 30), (messages.END, 7, b"")]
    assert messages.unpack_credit(got[2].body) == 1234
