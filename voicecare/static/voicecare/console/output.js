/* What is heard: the tracks of the speeches one after another, and a measurement of the sound itself.

The analyser has the last half second of the sound, sample by sample. So how soon a speech is heard, and how soon an
interruption is silent, is measured in the sound and not with timers. */

import { Mp3Player, Mp3Track } from "./mp3_track.js";
import { PcmTrack } from "./pcm_track.js";
import { sampleRate } from "./formats.js";

const WINDOW = 32768; // samples of the analyser, the most that it can have
const LOUD = 0.004; // of 1; below it, a sample counts as silence
const LISTEN_EVERY_MS = 50;
const SETTLE_MS = 300; // after an interruption, until the silence is measured

export class Output {
    #context;
    #analyser;
    #format;
    #mp3Player = null;
    #samples = new Float32Array(WINDOW);
    #listenedUntil = 0;
    #queue = [];
    #timer;
    #silence = null;

    /** Is called with the level (0 to 1) of each twentieth of a second. */
    onLevel = () => {};

    constructor(format) {
        this.#format = format;
        const rate = sampleRate(format);
        // A context with the rate of the format needs no conversion, whose seams between two frames would be heard.
        this.#context = new AudioContext({ latencyHint: "interactive", ...(rate && { sampleRate: rate }) });
        this.#analyser = this.#context.createAnalyser();
        this.#analyser.fftSize = WINDOW;
        this.#analyser.connect(this.#context.destination);
        if (rate === null) {
            this.#mp3Player = new Mp3Player(this.#context);
        }
        this.#timer = setInterval(() => this.#listen(), LISTEN_EVERY_MS);
    }

    get isRunning() {
        return this.#context.state === "running";
    }

    resume() {
        return this.#context.resume();
    }

    close() {
        clearInterval(this.#timer);
        this.silence();
        return this.#context.close();
    }

    get aheadSeconds() {
        return this.#queue.reduce((sum, { track }) => sum + track.aheadSeconds, 0);
    }

    /** Adds a track that plays after those before it. `onHeard` is called with the milliseconds from the moment when its
     * first frame had arrived, and its turn had come. */
    add({ onPlayed, onGap, onHeard, onFailed }) {
        const track = this.#format.startsWith("mp3")
            ? new Mp3Track(this.#context, this.#analyser, this.#mp3Player, this.#format)
            : new PcmTrack(this.#context, this.#analyser, this.#format);
        const entry = { track, onHeard, startedAt: null };
        track.onGap = onGap;
        track.onFailed = onFailed;
        track.onPlayed = () => {
            this.#remove(entry);
            onPlayed();
        };
        this.#queue.push(entry);
        this.#startFirst();
        return track;
    }

    /** Stops this track, and lets the next one begin. */
    drop(track) {
        const entry = this.#queue.find((one) => one.track === track);
        if (entry) {
            track.stop();
            this.#remove(entry);
        }
    }

    /** Stops these tracks. Calls back with the milliseconds of sound that was still heard, measured in the sound. */
    silence(tracks = this.#queue.map((entry) => entry.track), onMeasured = () => {}) {
        const from = this.#context.currentTime;
        const wasHeard = tracks.some((track) => track === this.#queue[0]?.track);
        for (const track of tracks) {
            track.stop();
        }
        this.#queue = this.#queue.filter((entry) => !tracks.includes(entry.track));
        if (wasHeard) {
            this.#settle();
            this.#silence = { from, onMeasured, timer: setTimeout(() => this.#settle(), SETTLE_MS) };
        }
        this.#startFirst();
    }

    #remove(entry) {
        this.#queue = this.#queue.filter((one) => one !== entry);
        this.#startFirst();
    }

    #startFirst() {
        const first = this.#queue[0];
        if (first && first.startedAt === null) {
            this.#settle();
            first.startedAt = this.#context.currentTime;
            first.track.start();
        }
    }

    /** Ends the measurement of an interruption, also when the next speech begins. */
    #settle() {
        if (!this.#silence) {
            return;
        }
        const { from, onMeasured, timer } = this.#silence;
        clearTimeout(timer);
        this.#silence = null;
        const last = this.#lastLoudTime();
        onMeasured(Math.max(0, Math.round((last - from) * 1000)));
    }

    #read() {
        this.#analyser.getFloatTimeDomainData(this.#samples);
        return this.#context.currentTime;
    }

    #lastLoudTime() {
        const end = this.#read();
        const index = this.#samples.findLastIndex((sample) => Math.abs(sample) > LOUD);
        return index < 0 ? 0 : end - (WINDOW - 1 - index) / this.#context.sampleRate;
    }

    #listen() {
        const end = this.#read();
        const count = Math.min(WINDOW, Math.round((end - this.#listenedUntil) * this.#context.sampleRate));
        if (count <= 0) {
            return;
        }
        this.#listenedUntil = end;
        const fresh = this.#samples.subarray(WINDOW - count);
        const loud = fresh.findIndex((sample) => Math.abs(sample) > LOUD);
        const first = this.#queue[0];
        if (loud >= 0 && first && first.onHeard) {
            const at = end - (count - loud) / this.#context.sampleRate;
            const from = Math.max(first.startedAt, first.track.firstFrameAt ?? Infinity);
            if (at >= from) {
                first.onHeard(Math.round((at - from) * 1000));
                first.onHeard = null;
            }
        }
        this.onLevel(fresh.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0));
    }
}
