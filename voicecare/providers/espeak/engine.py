"""Calls libespeak-ng through ctypes.

Only the worker process loads this library, which has global state and can crash.
"""

import ctypes
import signal
from pathlib import Path

import espeakng_loader

from voicecare.core.languages import code_of

SAMPLE_RATE = 22050

_SYNCHRONOUS = 2
_BUFFER_MS = 1000
_DONT_EXIT = 0x8000
_UTF8, _END_PAUSE = 0x1, 0x1000
_BY_CHARACTER = 1
_RATE, _PITCH = 1, 3
_ENGLISH = "gmw/en-US"
_SYNTHESIS_TIMEOUT_S = 10
# For each language without a voice, one whose voice pronounces the letters in nearly the same way.
_SUBSTITUTES = {"ceb": "ms", "fil": "ms", "gl": "es", "ha": "sw", "jv": "id", "ln": "sw", "ny": "sw", "so": "sw"}
_CRASHING_LANGUAGES = {"kl"}  # a single "0" in Greenlandic crashes the process

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):
    """The C structure espeak_VOICE.

    `languages` points to pairs of a priority byte and a C string. A priority of zero ends the list.
    """

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


class Engine:
    """The synthesizer. Only one thread may use it at a time."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._data = Path(espeakng_loader.get_data_path())
        home = str(self._data.parent).encode()
        if self._library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, home, _DONT_EXIT) != SAMPLE_RATE:
            raise RuntimeError(f"espeak-ng did not start with a sample rate of {SAMPLE_RATE} Hz.")
        self._pcm = bytearray()
        self._callback = _Callback(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)
        self._voices = self._find_voices()
        self._selected: tuple[str, str, int, int] | None = None

    def speak(self, text: str, language: str, variant: str, pitch: int, rate: int) -> bytes:
        """Returns the speech as mono PCM, signed 16 bit, at SAMPLE_RATE.

        Text that ends a clause is followed by a pause. `pitch` is 0 to 99, `rate` is in words per minute. Kills the
        process if the library takes more than 10 s.
        """
        self._select_voice(language, variant, pitch, rate)
        data = text.encode("utf-8", "ignore") + b"\0"
        self._pcm.clear()
        # The flag adds the pause after the last clause. In the middle of a sentence a pause would be wrong.
        flags = _UTF8 if text.rstrip()[-1:].isalnum() else _UTF8 | _END_PAUSE
        # The library can loop forever on some texts. The default action of SIGALRM then kills the process.
        signal.alarm(_SYNTHESIS_TIMEOUT_S)
        self._library.espeak_Synth(data, len(data), 0, _BY_CHARACTER, 0, flags, None, None)
        signal.alarm(0)
        return bytes(self._pcm)

    def _collect(self, samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._pcm += ctypes.string_at(samples, count * 2)
        return 0

    def _select_voice(self, language: str, variant: str, pitch: int, rate: int) -> None:
        wanted = (language, variant, pitch, rate)
        if wanted == self._selected:
            return
        code = code_of(language)
        tags = (language.lower().replace("_", "-"), code, _SUBSTITUTES.get(code, ""))
        voice = next((self._voices[tag] for tag in tags if tag in self._voices), _ENGLISH)
        suffix = f"+{variant}" if variant.isalnum() else ""
        if self._library.espeak_SetVoiceByName((voice + suffix).encode()):
            self._library.espeak_SetVoiceByName(voice.encode())
        self._library.espeak_SetParameter(_PITCH, min(max(pitch, 0), 99), 0)
        self._library.espeak_SetParameter(_RATE, min(max(rate, 80), 450), 0)
        self._selected = wanted

    def _find_voices(self) -> dict[str, str]:
        """Returns the best espeak voice for each language tag: the one with the lowest priority number."""
        self._library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
        listed = self._library.espeak_ListVoices(None)
        best: dict[str, tuple[int, str]] = {}
        index = 0
        while listed[index]:
            voice = listed[index].contents
            index += 1
            identifier = voice.identifier.decode()
            # The file of a voice can name a dictionary: nb uses that of no. Otherwise the names are the same.
            lines = (self._data / "lang" / identifier).read_text(errors="replace").splitlines()
            named = [line.split()[1] for line in lines if line.startswith("dictionary ")]
            dictionary = named[0] if named else identifier.rpartition("/")[2].partition("-")[0]
            # The wheel lists voices without their dictionary. Selecting one leaves the library in a half-changed state.
            if dictionary in _CRASHING_LANGUAGES or not (self._data / f"{dictionary}_dict").exists():
                continue
            address = voice.languages
            while priority := ctypes.string_at(address, 1)[0]:
                name = ctypes.string_at(address + 1)
                address += len(name) + 2
                tag, candidate = name.decode().lower(), (priority, identifier)
                best[tag] = min(best.get(tag, candidate), candidate)
        return {tag: identifier for tag, (_, identifier) in best.items()} | {"en": _ENGLISH}
