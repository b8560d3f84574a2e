/* One speech in a format without compression: every frame is scheduled right behind the one before it.

A track has `append(bytes)`, `finish()` after the last byte, `start()` when its turn comes, and `stop()`. It calls
`onPlayed` when all of it was played, and `onGap(seconds)` when it had nothing to play. Times are those of the audio
clock, in seconds. */

import { bytesPerSample, decode } from "./formats.js";

const LEAD_S = 0.03; // a first frame that is scheduled for "now" would be late

export class PcmTrack {
    #output;
    #context;
    #format;
    #waiting = []; // samples that came before the track's turn
    #rest = new Uint8Array(0); // half a sample
    #sources = new Set();
    #isStarted = false;
    #isFinished = false;
    #isStopped = false;
    #startFrame = null;
    #nextFrame = 0;
    #silentFrames = 0;

    firstFrameAt = null;
    onPlayed = () => {};
    onGap = () => {};

    constructor(context, destination, format) {
        this.#context = context;
        this.#format = format;
        this.#output = context.createGain();
        this.#output.connect(destination);
    }

    get playedSeconds() {
        if (this.#startFrame === null) {
            return 0;
        }
        const until = Math.min(this.#now(), this.#nextFrame);
        return Math.max(0, until - this.#startFrame - this.#silentFrames) / this.#context.sampleRate;
    }

    get aheadSeconds() {
        const waiting = this.#waiting.reduce((sum, samples) => sum + samples.length, 0);
        const scheduled = this.#startFrame === null ? 0 : Math.max(0, this.#nextFrame - this.#now());
        return (waiting + scheduled) / this.#context.sampleRate;
    }

    append(bytes) {
        if (this.#isStopped) {
            return;
        }
        this.firstFrameAt ??= this.#context.currentTime;
        const size = bytesPerSample(this.#format);
        const joined = new Uint8Array(this.#rest.length + bytes.length);
        joined.set(this.#rest);
        joined.set(bytes, this.#rest.length);
        const whole = joined.length - (joined.length % size);
        this.#rest = joined.slice(whole);
        if (whole) {
            this.#waiting.push(decode(this.#format, joined.subarray(0, whole)));
        }
        this.#schedule();
    }

    finish() {
        this.#isFinished = true;
        this.#endIfPlayed();
    }

    start() {
        this.#isStarted = true;
        this.#schedule();
        this.#endIfPlayed();
    }

    /** Nothing of the track is heard from the next block of 128 samples on. */
    stop() {
        this.#isStopped = true;
        this.#output.disconnect();
        for (const source of this.#sources) {
            source.onended = null;
            source.stop();
        }
        this.#sources.clear();
        this.#waiting = [];
    }

    #now() {
        return Math.round(this.#context.currentTime * this.#context.sampleRate);
    }

    #schedule() {
        if (!this.#isStarted) {
            return;
        }
        const lead = Math.round(LEAD_S * this.#context.sampleRate);
        for (const samples of this.#waiting.splice(0)) {
            const now = this.#now();
            if (this.#startFrame === null) {
                this.#startFrame = this.#nextFrame = now + lead;
            } else if (this.#nextFrame < now) {
                this.#silentFrames += now + lead - this.#nextFrame;
                this.onGap((now + lead - this.#nextFrame) / this.#context.sampleRate);
                this.#nextFrame = now + lead;
            }
            this.#play(samples);
        }
    }

    #play(samples) {
        const buffer = this.#context.createBuffer(1, samples.length, this.#context.sampleRate);
        buffer.copyToChannel(samples, 0);
        const source = this.#context.createBufferSource();
        source.buffer = buffer;
        source.connect(this.#output);
        source.onended = () => {
            source.disconnect();
            this.#sources.delete(source);
            this.#endIfPlayed();
        };
        this.#sources.add(source);
        source.start(this.#nextFrame / this.#context.sampleRate);
        this.#nextFrame += samples.length;
    }

    #endIfPlayed() {
        if (this.#isStarted && this.#isFinished && !this.#isStopped && !this.#sources.size && !this.#waiting.length) {
            this.#isStopped = true;
            this.#output.disconnect();
            this.onPlayed();
        }
    }
}
