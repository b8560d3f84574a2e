/* One speech in MP3: an audio element plays it from a MediaSource while it arrives. It is used like a PcmTrack.

All tracks of a page play through one element, each when its turn comes: browsers never free the Web Audio node of an
element before its context is closed. */

import { MediaSourceClass, MP3_TYPE } from "./formats.js";

const PLAYED_KEPT_S = 5; // when the browser's buffer is full, older audio that was played is removed

/** The element of all tracks of a page, and its node. */
export class Mp3Player {
    constructor(context) {
        this.element = new Audio();
        this.element.disableRemotePlayback = true; // Safari's MediaSource on phones requires it
        this.node = context.createMediaElementSource(this.element);
    }
}

export class Mp3Track {
    #context;
    #destination;
    #element;
    #node;
    #bytesPerSecond;
    #source = null;
    #buffer = null;
    #address = "";
    #events = new AbortController();
    #pending = [];
    #isStarted = false;
    #isFinished = false;
    #isStopped = false;
    #stalledAt = null;

    firstFrameAt = null;
    onPlayed = () => {};
    onGap = () => {};
    onFailed = () => {};

    constructor(context, destination, player, format) {
        this.#context = context;
        this.#destination = destination;
        this.#element = player.element;
        this.#node = player.node;
        this.#bytesPerSecond = (Number(format.split("_")[2]) * 1000) / 8;
    }

    get playedSeconds() {
        return this.#isPlaying ? this.#element.currentTime : 0;
    }

    get aheadSeconds() {
        const pending = this.#pending.reduce((sum, bytes) => sum + bytes.length, 0) / this.#bytesPerSecond;
        const { buffered, currentTime } = this.#element;
        const isBuffered = this.#isPlaying && buffered.length > 0;
        return pending + (isBuffered ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) : 0);
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
        const options = { signal: this.#events.signal };
        this.#source = new MediaSourceClass();
        this.#source.addEventListener("sourceopen", () => this.#open(), options);
        this.#element.addEventListener("waiting", () => this.#stall(), options);
        this.#element.addEventListener("playing", () => this.#goOn(), options);
        this.#element.addEventListener("ended", () => this.#end(), options);
        this.#element.addEventListener("error", () => this.onFailed(this.#element.error?.message), options);
        this.#address = URL.createObjectURL(this.#source);
        this.#element.src = this.#address;
        this.#node.connect(this.#destination);
        this.#element.play().catch((error) => this.#isStopped || this.onFailed(error.message));
        this.#endIfEmpty();
    }

    /** Nothing of the track is heard from the next block of 128 samples on. */
    stop() {
        if (this.#isPlaying) {
            this.#node.disconnect();
            this.#events.abort();
            this.#element.pause();
            this.#element.removeAttribute("src");
            this.#element.load();
            URL.revokeObjectURL(this.#address);
        }
        this.#isStopped = true;
        this.#pending = [];
        this.#source = this.#buffer = null;
    }

    get #isPlaying() {
        return this.#isStarted && !this.#isStopped;
    }

    #open() {
        this.#buffer = this.#source.addSourceBuffer(MP3_TYPE);
        this.#buffer.addEventListener("updateend", () => this.#pump(), { signal: this.#events.signal });
        this.#pump();
    }

    #pump() {
        if (!this.#buffer || this.#buffer.updating || this.#source.readyState === "closed") {
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
            const options = { once: true, signal: this.#events.signal };
            this.#element.addEventListener("timeupdate", () => this.#pump(), options);
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
        if (this.#isPlaying && this.#isFinished && this.firstFrameAt === null) {
            this.#end();
        }
    }

    #end() {
        this.stop();
        this.onPlayed();
    }
}
