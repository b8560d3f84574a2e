/* The microphone. The sound is recorded without the filters of the browser, because they change a voice. */

/** The microphone cannot be used. `reason` is "insecure", "refused", "missing", "busy" or "failed". */
export class RecorderError extends Error {
    constructor(reason) {
        super(reason);
        this.reason = reason;
    }
}

const REASONS = {
    NotAllowedError: "refused",
    SecurityError: "refused",
    NotFoundError: "missing",
    OverconstrainedError: "missing",
    NotReadableError: "busy",
    AbortError: "busy",
};

export class Recorder {
    #address;
    #stream = null;
    #context = null;
    #node = null;
    #parts = [];

    /** `onSamples` gets each part of the recording, and `onLost` is called if the microphone is unplugged. */
    onSamples = () => {};
    onLost = () => {};

    /** `address` is that of recorder_worklet.js. */
    constructor(address) {
        this.#address = address;
    }

    get sampleRate() {
        return this.#context.sampleRate;
    }

    /** Asks for the microphone and records. Throws RecorderError. */
    async start() {
        if (!window.isSecureContext || !navigator.mediaDevices || !window.AudioWorkletNode) {
            throw new RecorderError("insecure");
        }
        this.#parts = [];
        try {
            const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
            this.#stream = await navigator.mediaDevices.getUserMedia({ audio });
            this.#context = new AudioContext();
            await this.#context.audioWorklet.addModule(this.#address);
            await this.#context.resume();
        } catch (error) {
            this.#release();
            throw new RecorderError(REASONS[error.name] ?? "failed");
        }
        const [track] = this.#stream.getAudioTracks();
        track.onended = () => this.onLost();
        this.#node = new AudioWorkletNode(this.#context, "collector", { channelCount: 1, channelCountMode: "explicit" });
        this.#node.port.onmessage = ({ data }) => {
            this.#parts.push(data);
            this.onSamples(data);
        };
        this.#context.createMediaStreamSource(this.#stream).connect(this.#node);
        this.#node.connect(this.#context.destination); // silent; a node that leads nowhere may not be called
    }

    /** Ends the recording, and returns all of its parts. */
    async stop() {
        const { port } = this.#node;
        await new Promise((resolve) => {
            const timer = setTimeout(resolve, 500); // an audio thread that has ended does not answer
            port.onmessage = ({ data }) => {
                if (data === "stopped") {
                    clearTimeout(timer);
                    resolve();
                } else {
                    this.#parts.push(data);
                }
            };
            port.postMessage("stop");
        });
        this.#release();
        return this.#parts;
    }

    #release() {
        for (const track of this.#stream?.getTracks() ?? []) {
            track.onended = null;
            track.stop();
        }
        this.#context?.close();
        this.#stream = this.#context = null;
    }
}
