/* Runs in the audio thread: collects the samples of the microphone, and hands them over several times a second. */

const HANDED_OVER = 4096; // samples

class Collector extends AudioWorkletProcessor {
    #samples = new Float32Array(HANDED_OVER);
    #count = 0;
    #isStopped = false;

    constructor() {
        super();
        this.port.onmessage = () => {
            this.#isStopped = true;
            this.port.postMessage(this.#samples.slice(0, this.#count));
            this.port.postMessage("stopped");
        };
    }

    process([[channel]]) {
        if (channel && !this.#isStopped) {
            for (const sample of channel) {
                this.#samples[this.#count++] = sample;
                if (this.#count === HANDED_OVER) {
                    this.port.postMessage(this.#samples.slice());
                    this.#count = 0;
                }
            }
        }
        return !this.#isStopped;
    }
}

registerProcessor("collector", Collector);
