/* The WebSocket of the page. It connects again by itself after a loss, with growing random pauses. */

const PROTOCOL = "voicecare.v1";
const PING_EVERY_MS = 8000; // a dead network closes no socket for minutes
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;

/** Close codes after which another attempt with the same token is useless (docs/protocol.md). */
const FINAL = {
    4001: "This page was replaced by another connection with its token. Press Start to connect again.",
    4003:
        "The access of this page was revoked, has expired, or the patient was archived. Press Start to ask for a new " +
        "one. If that is refused, ask an administrator.",
    4008: "The server closed the connection after twenty errors in a row. The protocol log shows them.",
    4009: "The server closed the connection, because a message was too large. Send a shorter text.",
};
const FIRST_REFUSAL = 4400; // to 4499: the server refuses this device, and says why

export class DeviceSocket {
    #address;
    #token;
    #keepToken;
    #handlers;
    #socket = null;
    #losses = 0;
    #retryTimer;
    #pingTimer;
    #isAwaited = false;
    #isClosed = false;
    #retryNow = () => this.#isWaiting && this.#retry();
    #isWaiting = false;

    /** `keepToken` resolves if the token is valid. `handlers`: onOpen, onText, onAudio, onLost, onFinal(message). */
    constructor(address, token, keepToken, handlers) {
        this.#address = address;
        this.#token = token;
        this.#keepToken = keepToken;
        this.#handlers = handlers;
        window.addEventListener("online", this.#retryNow);
        this.#connect();
    }

    get isOpen() {
        return this.#socket?.readyState === WebSocket.OPEN;
    }

    send(message) {
        if (this.isOpen) {
            this.#socket.send(JSON.stringify(message));
        }
    }

    close() {
        this.#isClosed = true;
        window.removeEventListener("online", this.#retryNow);
        clearTimeout(this.#retryTimer);
        this.#detach()?.close(1000);
    }

    #connect() {
        const socket = new WebSocket(this.#address, [PROTOCOL, `token.${this.#token}`]);
        socket.binaryType = "arraybuffer";
        socket.onopen = () => {
            this.#losses = 0;
            this.#isAwaited = false;
            this.#pingTimer = setInterval(() => this.#ping(), PING_EVERY_MS);
            this.#handlers.onOpen();
        };
        socket.onmessage = ({ data }) => {
            this.#isAwaited = false;
            if (typeof data === "string") {
                this.#handlers.onText(JSON.parse(data));
            } else {
                this.#handlers.onAudio(new Uint8Array(data));
            }
        };
        socket.onclose = ({ code, reason }) => this.#lose(code, reason);
        this.#socket = socket;
    }

    #ping() {
        if (this.#isAwaited) {
            this.#lose(1006, "no answer to a ping");
        } else {
            this.#isAwaited = true;
            this.send({ type: "ping" });
        }
    }

    /** The socket is not used any longer, and its events are not, either. */
    #detach() {
        clearInterval(this.#pingTimer);
        const socket = this.#socket;
        if (socket) {
            socket.onopen = socket.onmessage = socket.onclose = null;
            this.#socket = null;
        }
        return socket;
    }

    #lose(code, reason) {
        this.#detach()?.close();
        const isRefused = code >= FIRST_REFUSAL && code < FIRST_REFUSAL + 100;
        if (code in FINAL || isRefused) {
            this.#end(FINAL[code] ?? `The server refuses this page: ${reason || `code ${code}`}.`);
            return;
        }
        const longest = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#losses);
        this.#losses += 1;
        this.#isWaiting = true;
        this.#retryTimer = setTimeout(() => this.#retry(), longest * (0.5 + Math.random() / 2));
        this.#handlers.onLost(code, reason);
    }

    #end(message) {
        this.close();
        this.#handlers.onFinal(message);
    }

    /** A browser cannot see why a handshake was refused, so the page asks first whether its token is valid. */
    async #retry() {
        clearTimeout(this.#retryTimer);
        this.#isWaiting = false;
        try {
            await this.#keepToken();
        } catch (error) {
            if (this.#isClosed) {
                return;
            }
            if (error.reason === "unreachable") {
                this.#lose(1006, "the server does not answer");
            } else {
                this.#end(error.reason === "logged_out" ? "logged_out" : FINAL[4003]);
            }
            return;
        }
        if (!this.#isClosed) {
            this.#connect();
        }
    }
}
