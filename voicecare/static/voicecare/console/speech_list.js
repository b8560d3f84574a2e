/* The list of speeches with their voice, source, state and time to the first audio; and the notices, newest first. */

const MOST_ROWS = 100;
const SOURCES = { live: "live", cache: "from the cache", backup: "backup voice", offline: "offline voice" };
const TONES = { backup: "warning", offline: "warning", failed: "bad", "cut off": "bad" };

function badge(text, tone) {
    const element = document.createElement("span");
    element.className = tone ? `badge badge-${tone}` : "badge";
    element.textContent = text;
    return element;
}

/** The server does not send the text of what it says by itself. */
function nameOf(speech) {
    if (speech.isHoldMessage) {
        return "The hold message";
    }
    return speech.id === "greeting" ? "The greeting" : "A message to the patient";
}

function prepend(list, row, placeholder) {
    placeholder.hidden = true;
    list.prepend(row);
    while (list.children.length > MOST_ROWS) {
        list.lastElementChild.remove();
    }
}

export class SpeechList {
    #list;
    #placeholder;
    #goalMs;
    #sayAgain;
    #rows = new WeakMap();

    constructor(list, placeholder, goalMs, sayAgain) {
        this.#list = list;
        this.#placeholder = placeholder;
        this.#goalMs = goalMs;
        this.#sayAgain = sayAgain;
    }

    show(speech) {
        let row = this.#rows.get(speech);
        if (!row) {
            row = this.#add(speech);
        }
        row.facts.replaceChildren(...this.#facts(speech));
        row.line.dataset.state = speech.state;
        row.line.dataset.source = speech.source;
    }

    #add(speech) {
        const line = document.createElement("li");
        line.dataset.speech = speech.id;
        const text = document.createElement("div");
        text.textContent = speech.text || nameOf(speech);
        const facts = document.createElement("div");
        if (speech.text) {
            const again = document.createElement("button");
            again.type = "button";
            again.className = "button console-again";
            again.textContent = "Again";
            again.setAttribute("aria-label", `Say again: ${speech.text}`);
            again.addEventListener("click", () => this.#sayAgain(speech.text));
            line.append(again);
        }
        line.append(text, facts);
        prepend(this.#list, line, this.#placeholder);
        const row = { line, facts };
        this.#rows.set(speech, row);
        return row;
    }

    #facts(speech) {
        const facts = [badge(speech.state, TONES[speech.state])];
        for (const { source, voice } of speech.voices) {
            facts.push(badge(SOURCES[source] ?? source, TONES[source]), document.createTextNode(` ${voice} `));
        }
        if (speech.firstAudioMs !== null) {
            const ms = Math.round(speech.firstAudioMs);
            facts.push(badge(`first audio ${ms} ms`, ms <= this.#goalMs ? "good" : "warning"));
        }
        if (speech.detail) {
            const detail = document.createElement("div");
            detail.textContent = speech.detail;
            facts.push(detail);
        }
        return facts;
    }
}

export class NoticeList {
    #list;
    #placeholder;

    constructor(list, placeholder) {
        this.#list = list;
        this.#placeholder = placeholder;
    }

    show(message) {
        const line = document.createElement("li");
        const time = document.createElement("time");
        time.textContent = new Date().toTimeString().slice(0, 8);
        time.className = "quiet";
        line.append(message, " ", time);
        prepend(this.#list, line, this.#placeholder);
    }
}
