/* A conversation of the device protocol: what was said, what plays, and what the server says about it.

It sends through `send`, plays through `output`, and tells the page about every change. It survives its connection: after
a loss it resumes the conversation. */

import { streamWords } from "./word_stream.js";

const PROGRESS_EVERY_MS = 1000;
const FINISHED = new Set(["played", "interrupted", "failed", "cut off"]);
const MOST_SPEECHES = 500;

class Speech {
    voices = [];
    source = "";
    state = "waiting";
    detail = "";
    firstAudioMs = null;
    /** When it was requested, if its first audio is the next thing that the server has to do. */
    requestedAt = null;
    track = null;
    isReceived = false;
    isHoldMessage = false;
    isStreamed = false;
    stopStream = () => {};

    constructor(id, text) {
        this.id = id;
        this.text = text;
    }

    get isServerStarted() {
        return this.id.startsWith("srv-");
    }

    get isFinished() {
        return FINISHED.has(this.state);
    }
}

export class Conversation {
    #send;
    #output;
    #page;
    #id = null;
    #isStarting = false;
    #format;
    #hasGreeting;
    #speeches = new Map();
    #current = null;
    #unsentAcks = new Set();
    #progressTimer;

    /** `page` has onStarted(message), onEnded(), onSpeech(speech), onNotice(text), onBytes(count), onGap(seconds),
     * onHeard(ms), onSilent(ms), onProblem(text). */
    constructor(send, output, format, hasGreeting, page) {
        this.#send = send;
        this.#output = output;
        this.#format = format;
        this.#hasGreeting = hasGreeting;
        this.#page = page;
        this.#progressTimer = setInterval(() => this.#reportProgress(), PROGRESS_EVERY_MS);
    }

    /** To be called for each new connection. */
    onConnected() {
        for (const id of this.#unsentAcks) {
            this.#send({ type: "ack", id });
        }
        this.#unsentAcks.clear();
        this.#isStarting = true;
        if (this.#id) {
            this.#send({ type: "conversation.start", resume: this.#id });
        } else {
            this.#send({ type: "conversation.start", format: this.#format, greeting: this.#hasGreeting });
        }
    }

    /** What has arrived is still played. The server ends what was playing or waiting, and keeps what is queued. */
    onLost() {
        for (const speech of this.#unfinished()) {
            speech.stopStream();
            if (!speech.isReceived && speech.state !== "queued") {
                speech.track?.finish();
                speech.isReceived = true;
                this.#change(speech, "cut off", "The connection was lost. What had arrived was played.");
            }
        }
        this.#current = null;
    }

    close() {
        clearInterval(this.#progressTimer);
        this.onLost();
    }

    end() {
        this.#send({ type: "conversation.end" });
    }

    speak(text, byWords) {
        const id = crypto.getRandomValues(new Uint32Array(3)).join("-");
        const speech = new Speech(id, text);
        speech.isStreamed = byWords;
        speech.requestedAt = byWords || this.#unfinished().length ? null : performance.now();
        this.#speeches.set(id, speech);
        this.#forgetOld();
        this.#page.onSpeech(speech);
        if (byWords) {
            speech.stopStream = streamWords(text, id, (message) => this.#send(message));
        } else {
            this.#send({ type: "speak", id, text });
        }
    }

    /** Silences everything at once. The server's answers follow. */
    interrupt() {
        const unfinished = this.#unfinished();
        this.#output.silence(undefined, (ms) => this.#page.onSilent(ms));
        this.#send({ type: "interrupt" });
        for (const speech of unfinished) {
            speech.stopStream();
            if (speech.isServerStarted) {
                this.#send({ type: "interrupt", id: speech.id });
            }
            this.#change(speech, "interrupted");
        }
    }

    onAudio(bytes) {
        const speech = this.#current;
        this.#page.onBytes(bytes.length);
        if (!speech) {
            return;
        }
        if (speech.requestedAt !== null && speech.firstAudioMs === null) {
            speech.firstAudioMs = performance.now() - speech.requestedAt;
            this.#page.onSpeech(speech);
        }
        speech.track?.append(bytes);
    }

    onMessage(message) {
        const handlers = {
            "conversation.started": this.#onStarted,
            "conversation.ended": this.#onEnded,
            "speech.started": this.#onSpeechStarted,
            "speech.switched": this.#onSwitched,
            "speech.queued": this.#onQueued,
            "speech.finished": this.#onFinished,
            "speech.interrupted": this.#onInterrupted,
            "speech.failed": this.#onFailed,
            notice: this.#onNotice,
            error: this.#onError,
        };
        handlers[message.type]?.call(this, message); // other types may be added to the protocol
    }

    #onStarted(message) {
        if (message.initiated === "server" && this.#isStarting) {
            return; // for a message that has waited; the answer to the page's own request follows
        }
        this.#isStarting = false;
        this.#id = message.conversation;
        this.#page.onStarted(message);
    }

    #onEnded({ conversation }) {
        if (conversation === this.#id) {
            this.#id = null;
            this.#page.onEnded();
        }
    }

    #onSpeechStarted({ id, source, voice, hold_message: isHoldMessage }) {
        const known = this.#speeches.get(id);
        const isRepeated = known?.isServerStarted && known.isReceived; // a delivery that was not acknowledged
        const speech = !known || isRepeated ? new Speech(id, "") : known;
        if (isRepeated && known.track) {
            this.#output.drop(known.track);
        }
        speech.isHoldMessage = Boolean(isHoldMessage);
        this.#speeches.set(id, speech);
        this.#forgetOld();
        this.#current = speech;
        if (speech.isFinished) {
            return; // interrupted here before the server knew of it
        }
        speech.track = this.#output.add({
            onPlayed: () => this.#onPlayed(speech),
            onGap: (seconds) => this.#page.onGap(seconds),
            onHeard: (ms) => this.#page.onHeard(ms),
            onFailed: (reason) => this.#page.onProblem(`The browser cannot play this sound: ${reason}`),
        });
        this.#speak(speech, source, voice);
        this.#change(speech, "playing");
    }

    #onSwitched({ id, source, voice }) {
        const speech = this.#speeches.get(id);
        if (speech) {
            this.#speak(speech, source, voice);
            this.#page.onSpeech(speech);
        }
    }

    #speak(speech, source, voice) {
        speech.source = source;
        speech.voices.push({ source, voice });
    }

    #onQueued({ id, reason, expires_at: expiresAt }) {
        const speech = this.#speeches.get(id);
        if (speech) {
            const until = new Date(expiresAt).toTimeString().slice(0, 8);
            const why = reason === "quota" ? "the provider's credits are used up" : "the provider is busy";
            speech.requestedAt = null; // it waits for something else than the first audio
            this.#change(speech, "queued", `It waits until ${until}, because ${why}.`);
        }
    }

    #onFinished({ id, first_chunk_ms: firstChunkMs }) {
        const speech = this.#speeches.get(id) ?? this.#current;
        if (!speech) {
            return;
        }
        if (!speech.isStreamed) { // the server's time would include that of the typing
            speech.firstAudioMs ??= firstChunkMs;
        }
        this.#receivedAll(speech);
        if (speech.track) {
            this.#page.onSpeech(speech);
        } else if (!speech.isFinished) {
            this.#change(speech, "played", "There was nothing to speak.");
        }
    }

    #onInterrupted({ id }) {
        const speech = this.#speeches.get(id);
        if (speech) {
            if (speech.track && !speech.isFinished) {
                this.#output.drop(speech.track);
            }
            this.#receivedAll(speech);
            this.#change(speech, "interrupted");
        }
    }

    #onFailed({ id, message }) {
        const speech = this.#speeches.get(id);
        if (speech) {
            this.#receivedAll(speech);
            this.#change(speech, "failed", message);
        }
    }

    #onNotice({ message }) {
        this.#page.onNotice(message);
    }

    #onError({ code, message, id }) {
        const speech = this.#speeches.get(id);
        if (code === "unknown_id" && this.#isStarting) {
            this.#id = null; // it ended while the page was away
            this.#hasGreeting = false;
            this.onConnected();
        } else if (speech && !speech.isFinished && !speech.isServerStarted) {
            speech.stopStream();
            this.#receivedAll(speech);
            this.#change(speech, "failed", message);
        } else {
            this.#page.onProblem(message);
        }
    }

    #receivedAll(speech) {
        speech.isReceived = true;
        speech.track?.finish();
        if (this.#current === speech) {
            this.#current = null;
        }
    }

    /** A message to the patient is acknowledged when it was played to its end, and not before. */
    #onPlayed(speech) {
        if (speech.isServerStarted && !speech.isHoldMessage && speech.state === "playing" && speech.isReceived) {
            if (!this.#send({ type: "ack", id: speech.id })) {
                this.#unsentAcks.add(speech.id);
            }
        }
        if (!speech.isFinished) {
            this.#change(speech, "played");
        }
        speech.track = null;
    }

    #reportProgress() {
        const playing = this.#unfinished().find(({ track }) => track?.playedSeconds > 0);
        if (playing && !playing.isReceived) {
            this.#send({ type: "progress", id: playing.id, ms: Math.round(playing.track.playedSeconds * 1000) });
        }
    }

    #unfinished() {
        return [...this.#speeches.values()].filter((speech) => !speech.isFinished);
    }

    #forgetOld() {
        for (const [id, speech] of this.#speeches) {
            if (this.#speeches.size <= MOST_SPEECHES || !speech.isFinished) {
                return;
            }
            this.#speeches.delete(id);
        }
    }

    #change(speech, state, detail = "") {
        speech.state = state;
        speech.detail = detail;
        this.#page.onSpeech(speech);
    }
}
