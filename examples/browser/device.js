/* A device in a browser: reconnects, resumes, plays PCM with Web Audio, and acknowledges what was played. */

import { Track } from "./track.js";

const FORMAT = "pcm_24000";
const FIRST_DELAY_S = 1;
const MAX_DELAY_S = 30;
const QUIET_S = 10; // without a frame: then a ping
const PONG_S = 5;
const KNOWN_DELIVERIES = 32;

export class Device {
    /** `onState` and `onSpeech` get a text for the person in front of the page. */
    constructor(url, token, { onState, onSpeech }) {
        Object.assign(this, { url, token, onState, onSpeech });
        this.context = new AudioContext();
        this.delay = FIRST_DELAY_S;
        this.socket = this.conversation = this.refusal = null;
        this.isConnected = this.isClosed = this.isGreeted = false; // connected: a conversation is open
        this.own = new Map(); // speeches of this device that were not received to their end: id and text
        this.queued = new Set(); // those of them that the server keeps, also without a connection
        this.heard = []; // server-started speeches that were played to their end
        this.tracks = new Map(); // what is received or played
        this.receiving = null; // the track whose audio comes
    }

    connect() {
        this.context.resume();
        this.refusal = null;
        // A browser cannot send the header Authorization, so the token is a second subprotocol.
        this.socket = new WebSocket(this.url, ["voicecare.v1", `token.${this.token}`]);
        this.socket.binaryType = "arraybuffer";
        this.socket.onopen = () => this.start(this.conversation);
        this.socket.onmessage = ({ data }) => this.onMessage(data);
        this.socket.onclose = (event) => this.onClose(event);
        this.watch();
        this.onState("Connecting.");
    }

    close() {
        this.isClosed = true;
        clearTimeout(this.timer);
        this.discard([...this.tracks.keys()]);
        this.socket.close();
        this.context.close();
    }

    speak(text) {
        const id = crypto.getRandomValues(new Uint32Array(4)).join("-");
        this.own.set(id, text);
        this.send({ type: "speak", id, text });
    }

    interrupt() {
        this.send({ type: "interrupt" });
        this.discard([...this.tracks.keys()].filter((id) => !id.startsWith("srv-"))); // before the server answers
        this.own.clear();
    }

    // The connection

    start(resume) {
        const wishes = resume ? { resume } : { greeting: !this.isGreeted };
        this.send({ type: "conversation.start", format: FORMAT, ...wishes });
    }

    send(frame) {
        if (this.socket.readyState === WebSocket.OPEN) {
            this.socket.send(JSON.stringify(frame));
        }
    }

    /** A dead network closes no socket, so silence is noticed. */
    watch() {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => {
            this.send({ type: "ping" });
            this.timer = setTimeout(() => this.onClose({ code: 1006, reason: "no answer" }), PONG_S * 1000);
        }, QUIET_S * 1000);
    }

    onClose({ code, reason }) {
        clearTimeout(this.timer);
        this.socket.onclose = this.socket.onmessage = null;
        this.socket.close();
        this.isConnected = false;
        if (this.isClosed) {
            return;
        }
        if (this.receiving !== null) {
            this.discard([this.receiving.id]); // incomplete
        }
        for (const id of this.queued) {
            this.own.delete(id);
        }
        this.queued.clear();
        const why = this.refusal ? `${this.refusal.code}: ${this.refusal.message}` : `${code} ${reason}`;
        if (code === 4001 || code === 4003 || (code >= 4400 && code < 4500)) {
            this.onState(`A person has to look at this device. ${why}`);
            return;
        }
        const longest = code === 4012 ? FIRST_DELAY_S : this.delay;
        this.delay = Math.min(2 * this.delay, MAX_DELAY_S);
        this.timer = setTimeout(() => this.connect(), 1000 * longest * Math.random());
        this.onState(`No connection (${why}). Trying again.`);
    }

    // Messages

    onMessage(data) {
        this.watch();
        if (data instanceof ArrayBuffer) {
            this.receiving?.add(data);
            return;
        }
        const frame = JSON.parse(data);
        if (frame.type === "conversation.started" && frame.initiated === "device") {
            this.onConversation(frame);
        } else if (frame.type === "conversation.ended") {
            this.isConnected = false; // it was resumed elsewhere
            this.conversation = null;
            this.start(null);
        } else if (frame.type === "error") {
            this.onError(frame);
        } else if (frame.type === "notice") {
            this.onSpeech(frame.message);
        } else if (frame.type === "speech.queued") {
            this.queued.add(frame.id);
        } else if (frame.type === "speech.started") {
            this.onStartOfSpeech(frame);
        } else if (["speech.finished", "speech.failed", "speech.interrupted"].includes(frame.type)) {
            this.onEndOfSpeech(frame);
        }
    }

    onConversation(frame) {
        this.isConnected = this.isGreeted = true;
        this.delay = FIRST_DELAY_S;
        this.conversation = frame.conversation;
        this.heard.forEach((id) => this.send({ type: "ack", id })); // it may have been lost with the connection
        const texts = [...this.own.values()];
        this.own.clear();
        texts.forEach((text) => this.speak(text));
        this.onState(`${frame.companion} is here, in the voice ${frame.voice.name}.`);
    }

    onError(frame) {
        this.own.delete(frame.id);
        if (frame.code === "unknown_id" && !this.isConnected) {
            this.conversation = null; // it has ended
            this.start(null);
        } else if (frame.id === undefined && !this.isConnected) {
            this.refusal = frame; // a refused handshake: the server closes the socket now
        } else {
            this.onSpeech(`${frame.code}: ${frame.message}`);
        }
    }

    onStartOfSpeech(frame) {
        if (this.heard.includes(frame.id) || this.tracks.get(frame.id)?.isWhole) {
            this.receiving = null; // a repetition of what was received as a whole: its audio is ignored
            return;
        }
        this.receiving = new Track(this.context, frame, () => this.onPlayed(frame.id));
        this.tracks.set(frame.id, this.receiving);
    }

    onEndOfSpeech(frame) {
        this.own.delete(frame.id);
        this.queued.delete(frame.id);
        if (frame.type === "speech.interrupted") {
            this.discard([frame.id]);
        } else if (frame.type === "speech.finished" && this.heard.includes(frame.id)) {
            this.send({ type: "ack", id: frame.id }); // only the acknowledgement was lost
        } else if (this.receiving?.id === frame.id) {
            this.receiving.finish(frame.type === "speech.finished");
            this.receiving = null;
        }
    }

    onPlayed(id) {
        const { isWhole, seconds } = this.tracks.get(id);
        this.tracks.delete(id);
        if (isWhole && id.startsWith("srv-")) {
            this.heard = [...this.heard, id].slice(-KNOWN_DELIVERIES);
            this.send({ type: "ack", id });
        }
        this.onSpeech(`${isWhole ? "Heard" : "Failed"}: ${seconds.toFixed(1)} s`);
    }

    /** Silence, immediately. What may still come of these speeches is ignored. */
    discard(ids) {
        for (const id of ids) {
            this.tracks.get(id)?.stop();
            this.tracks.delete(id);
            if (this.receiving?.id === id) {
                this.receiving = null;
            }
        }
    }
}
