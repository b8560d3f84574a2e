/* One speech: its PCM frames, played one after the other without a gap. */

const START_S = 0.15; // before the first sound, so that a slow network causes no gap
const nextTimes = new WeakMap(); // when each context has played all that was scheduled

export class Track {
    /** `onPlayed` is called when the last sample was played, and not after `stop`. */
    constructor(context, { id, format }, onPlayed) {
        Object.assign(this, { context, id, onPlayed });
        this.rate = Number(format.split("_")[1]);
        this.halfSample = new Uint8Array(0);
        this.sources = new Set();
        this.seconds = 0;
        this.isFinished = this.isWhole = false;
    }

    add(buffer) {
        const bytes = new Uint8Array(this.halfSample.length + buffer.byteLength); // a frame may end within a sample
        bytes.set(this.halfSample);
        bytes.set(new Uint8Array(buffer), this.halfSample.length);
        const count = bytes.length >> 1;
        this.halfSample = bytes.slice(2 * count);
        if (count === 0) {
            return;
        }
        const audio = this.context.createBuffer(1, count, this.rate);
        const samples = audio.getChannelData(0);
        const view = new DataView(bytes.buffer);
        for (let index = 0; index < count; index += 1) {
            samples[index] = view.getInt16(2 * index, true) / 32768;
        }
        this.play(audio);
    }

    play(audio) {
        const source = this.context.createBufferSource();
        source.buffer = audio;
        source.connect(this.context.destination);
        const at = Math.max(nextTimes.get(this.context) ?? 0, this.context.currentTime + (this.seconds ? 0 : START_S));
        source.start(at);
        nextTimes.set(this.context, at + audio.duration);
        this.seconds += audio.duration;
        this.sources.add(source);
        source.onended = () => {
            this.sources.delete(source);
            this.endIfPlayed();
        };
    }

    finish(isWhole) {
        this.isFinished = true;
        this.isWhole = isWhole;
        this.endIfPlayed();
    }

    stop() {
        this.isFinished = false;
        nextTimes.delete(this.context);
        for (const source of this.sources) {
            source.onended = null;
            source.stop();
        }
    }

    endIfPlayed() {
        if (this.isFinished && this.sources.size === 0) {
            this.onPlayed();
        }
    }
}
