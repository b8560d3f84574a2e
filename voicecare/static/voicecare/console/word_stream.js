/* Sends a text word by word, as the language model of an AI companion writes it. */

const WORD_EVERY_MS = 120;

/** The returned function ends the stream; the server then takes the text as it is. */
export function streamWords(text, id, send) {
    const words = text.match(/\s*\S+\s*/g) ?? [];
    let timer;
    function next() {
        const word = words.shift();
        if (word === undefined) {
            send({ type: "speak.done", id });
            return;
        }
        send({ type: "speak.delta", id, text: word });
        timer = setTimeout(next, WORD_EVERY_MS);
    }
    next();
    return () => {
        clearTimeout(timer);
        words.length = 0;
    };
}
