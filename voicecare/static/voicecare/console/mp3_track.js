/* One speech in MP3: an audio element plays it from a MediaSource while it arrives. It is used like a PcmTrack. */

import { MediaSourceClass, MP3_TYPE } from "./formats.js";

const PLAYED_KEPT_S = 5; // when the browser's buffer is full, older audio that was played is removed

export class Mp3Track {
    #context;
    #element = new Audio();
    #source = new MediaSourceClass();
    #buffer = null;
    #node;
    #address;
    #pending = [];
    #isStarted = false;
    #isFinished = false;
    #isStopped = false;
    #stalledAt = null;

    firstFrameAt = null;
    onPlayed = () => {};
    onGap = () => {};
    onFailed = () => {};

    constructor(context, destination) {
        this.#context = context;
        this.#node = context.createMediaElementSource(this.#element);
        this.#node.connect(destination);
        this.#element.disableRemotePlayback = true; // Safari's MediaSource on phones requires it
        this.#source.addEventListener("sourceopen", () => this.#open(), { once: true });
        this.#element.addEventListener("waiting", () => this.#stall());
        this.#element.addEventListener("playing", () => this.#goOn());
        this.#element.addEventListener("ended", () => this.#end());
        this.#element.addEventListener("error", () => this.#isStopped || this.onFailed(this.#element.error?.message));
        this.#address = URL.createObjectURL(this.#source);
        this.#element.src = this.#address;
    }

    get playedSeconds() {
        return this.#element.currentTime;
    }

    get aheadSeconds() {
        const { buffered, currentTime } = this.#element;
        return buffered.length ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) : 0;
    }

    append(bytes) {
        if (!this.#isStopped) {
            this.firstFrameAt ??= this.#context.currentTime;
            this.#pending.push(bytes);
            this.#pump();
        }
    }

    finish() {
        this.#isFinished = true;
        this.#pump();
        this.#endIfEmpty();
    }

    start() {
        this.#isStarted = true;
        this.#element.play().catch((error) => this.#isStopped || this.onFailed(error.message));
        this.#endIfEmpty();
    }

    /** Nothing of the track is heard from the next block of 128 samples on. */
    stop() {
        this.#isStopped = true;
        this.#node.disconnect();
        this.#element.pause();
        this.#pending = [];
        this.#element.removeAttribute("src");
        this.#element.load();
        URL.revokeObjectURL(this.#address);
    }

    #open() {
        this.#buffer = this.#source.addSourceBuffer(MP3_TYPE);
        this.#buffer.addEventListener("updateend", () => this.#pump());
        this.#pump();
    }

    #pump() {
        if (this.#isStopped || !this.#buffer || this.#buffer.updating || this.#source.readyState === "closed") {
            return;
        }
        if (this.#pending.length) {
            this.#appendFirst();
        } else if (this.#isFinished && this.#source.readyState === "open") {
            this.#source.endOfStream();
        }
    }

    #appendFirst() {
        try {
            this.#buffer.appendBuffer(this.#pending[0]);
            this.#pending.shift();
        } catch (error) {
            if (error.name !== "QuotaExceededError") {
                throw error;
            }
            const played = this.#element.currentTime - PLAYED_KEPT_S;
            if (played > 0) {
                this.#buffer.remove(0, played);
            }
            this.#element.addEventListener("timeupdate", () => this.#pump(), { once: true });
        }
    }

    #stall() {
        if (this.#element.currentTime > 0) {
            this.#stalledAt = this.#context.currentTime;
        }
    }

    #goOn() {
        if (this.#stalledAt !== null) {
            this.onGap(this.#context.currentTime - this.#stalledAt);
            this.#stalledAt = null;
        }
    }

    #endIfEmpty() {
        if (this.#isStarted && this.#isFinished && this.firstFrameAt === null) {
            this.#end();
        }
    }

    #end() {
        if (!this.#isStopped) {
            this.stop();
            this.onPlayed();
        }
    }
}
