"""The processor time of the step from the written to the spoken form: `python -m tests.bench.spoken_form`."""

import time

from tts.text.lexicon import Lexicon, LexiconLayer, Replacement
from tts.text.spoken_form import Pronunciation

SENTENCES = {
    "usual": "Good morning, Anna. Did you sleep well? Your daughter comes for coffee this afternoon.",
    "with numbers": "Please take 2 x 500 mg of Drug77 at 14:30 and 5 ml of the syrup at 8 pm, on May 3, 2026.",
    "with markup": "**Please** take your [tablets](https://example.org) now 🙂, and *then* rest a little while.",
}
REPEATS = 5000


def main() -> None:
    layer = LexiconLayer(Replacement(f"Drug{number}", f"drug {number}") for number in range(10_000))
    for entries, lexicon in ((0, Lexicon()), (10_000, Lexicon((layer,)))):
        say = Pronunciation("en", lexicon)
        for name, sentence in SENTENCES.items():
            began = time.process_time()
            for _ in range(REPEATS):
                say.plain(sentence)
            print(f"{entries:6} entries, {name:13} {(time.process_time() - began) / REPEATS * 1e6:6.1f} µs")


if __name__ == "__main__":
    main()
