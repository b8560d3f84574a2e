"""The table of audio formats."""

from voicecare.audio.formats import DEVICE_FORMATS, FORMATS


def test_the_first_device_format_is_the_default():
    assert DEVICE_FORMATS[0] == "mp3_44100_128"
    assert set(DEVICE_FORMATS) <= set(FORMATS)
    assert len(FORMATS) == 28


def test_rate_and_type_of_a_format():
    assert (FORMATS["mp3_44100_128"].bytes_per_second, FORMATS["mp3_44100_128"].mime) == (16000, "audio/mpeg")
    assert (FORMATS["pcm_16000"].bytes_per_second, FORMATS["pcm_16000"].bit_rate) == (32000, None)
    assert FORMATS["ulaw_8000"].bytes_per_second == 8000
