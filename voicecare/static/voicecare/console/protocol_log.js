/* The frames of the protocol, newest last. Frames with audio are counted in one line. The token is never in it. */

const MOST_LINES = 300;

export class ProtocolLog {
    #list;
    #scroller;
    #audio = null;

    constructor(list) {
        this.#list = list;
        this.#scroller = list.parentElement;
    }

    sent(message) {
        this.#add("→", "sent", JSON.stringify(message));
    }

    received(message) {
        this.#add("←", "received", JSON.stringify(message));
    }

    event(text) {
        this.#add("·", "event", text);
    }

    audio(bytes) {
        if (!this.#audio) {
            this.#audio = { frames: 0, bytes: 0, line: this.#add("←", "received", "") };
        }
        const audio = this.#audio;
        audio.frames += 1;
        audio.bytes += bytes;
        const frames = audio.frames === 1 ? "1 binary frame" : `${audio.frames} binary frames`;
        audio.line.textContent = `${frames}, ${audio.bytes.toLocaleString("en")} bytes`;
    }

    clear() {
        this.#audio = null;
        this.#list.replaceChildren();
    }

    get text() {
        return [...this.#list.children].map((line) => line.textContent).join("\n");
    }

    #add(sign, word, text) {
        this.#audio = null;
        const atEnd = this.#scroller.scrollHeight - this.#scroller.scrollTop - this.#scroller.clientHeight < 40;
        const line = document.createElement("li");
        const time = document.createElement("time");
        time.textContent = new Date().toISOString().slice(11, 23);
        const direction = document.createElement("span");
        direction.textContent = sign;
        direction.title = word;
        const content = document.createElement("code");
        content.textContent = text;
        line.append(time, " ", direction, " ", content);
        this.#list.append(line);
        while (this.#list.children.length > MOST_LINES) {
            this.#list.firstElementChild.remove();
        }
        if (atEnd) {
            this.#scroller.scrollTop = this.#scroller.scrollHeight;
        }
        return content;
    }
}
