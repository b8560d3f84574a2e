/* The first part of the page: makes or takes a recording, and shows what could be better before it is sent. */

import { Levels } from "./levels.js";
import { Recorder } from "./recorder.js";
import { findingsOf, showList } from "./report.js";
import { BYTES_PER_SECOND, RATE, wavOf } from "./wav.js";

const MAX_SECONDS_SPARE = 3;
const METER_DB = 60; // the meter shows the level above -60 dBFS
const QUIET_DBFS = -40;
const MICROPHONE_PROBLEMS = {
    insecure:
        "This browser gives the microphone to secure pages only. Open this page with https, or choose a file with a recording instead.",
    refused:
        "The microphone is not allowed for this page. Allow it in the settings of the page, next to the address, and press Record again. Or choose a file with a recording.",
    missing: "No microphone was found. Connect one and press Record again, or choose a file with a recording.",
    busy: "The microphone is used by another program. Close that program and press Record again.",
    failed: "The recording could not be started. Press Record again, or choose a file with a recording.",
};

const element = (id) => document.getElementById(id);

export class Recording {
    #calls;
    #address;
    #maxBytes;
    #minSeconds;
    #recorder;
    #levels = null;
    #abort = null;
    #url = "";
    #nextAnnouncement = 0;

    /** The file to send, or null. */
    file = null;
    /** Called with the report of the server, or null if there is none (yet). */
    onReport = () => {};
    onLoggedOut = () => {};
    announce = () => {};

    constructor(calls, { check, worklet, maxBytes, minSeconds }) {
        this.#calls = calls;
        this.#address = check;
        this.#maxBytes = Number(maxBytes);
        this.#minSeconds = Number(minSeconds);
        this.#recorder = new Recorder(worklet);
        this.#recorder.onSamples = (samples) => this.#onSamples(samples);
        this.#recorder.onLost = () => this.stop("The microphone was disconnected.");
        element("record").addEventListener("click", () => this.start());
        element("stop").addEventListener("click", () => this.stop());
        element("file").addEventListener("change", ({ target }) => target.files[0] && this.take(target.files[0]));
        this.#acceptDrops(element("recording-card"));
        element("record").disabled = false; // a click before would have been lost
    }

    get isRecording() {
        return this.#levels !== null;
    }

    async start() {
        this.clear();
        element("record").disabled = true;
        element("file").disabled = true;
        element("level-detail").textContent = "Allow the microphone, if the browser asks for it.";
        try {
            await this.#recorder.start();
        } catch (error) {
            this.#showRecording(false);
            this.#refuse(MICROPHONE_PROBLEMS[error.reason] ?? MICROPHONE_PROBLEMS.failed);
            return;
        }
        this.#levels = new Levels(this.#recorder.sampleRate);
        this.#nextAnnouncement = this.#minSeconds / 2;
        this.#showRecording(true);
        this.announce("Recording.");
        element("stop").focus();
    }

    async stop(problem = "") {
        if (!this.isRecording) {
            return;
        }
        const levels = this.#levels;
        const { sampleRate } = this.#recorder;
        this.#levels = null;
        const parts = await this.#recorder.stop();
        this.#showRecording(false);
        element("record").focus();
        const wav = await wavOf(parts, sampleRate);
        this.#accept(new File([wav], "recording.wav", { type: "audio/wav" }), levels);
        if (problem) {
            this.#showProblem(problem);
        }
    }

    /** Takes a file that was chosen or dropped. */
    async take(file) {
        this.clear();
        if (file.size > this.#maxBytes) {
            const megabytes = (bytes) => Math.round(bytes / 1_000_000);
            this.#refuse(
                `This file has ${megabytes(file.size)} MB, and at most ${megabytes(this.#maxBytes)} MB can be sent. One to two minutes are enough: cut off the rest, or save it as MP3 or M4A.`,
            );
            return;
        }
        let levels = null;
        try {
            const sound = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
            levels = new Levels(sound.sampleRate);
            levels.add(sound.getChannelData(0));
        } catch {
            // The browser does not know the format. The server may know it, and says so otherwise.
        }
        this.#accept(file, levels);
    }

    clear() {
        this.#abort?.abort();
        this.file = null;
        this.onReport(null);
        URL.revokeObjectURL(this.#url);
        this.#url = "";
        element("playback").removeAttribute("src");
        element("recorded").hidden = true;
        element("time-bar").value = 0;
        element("time").textContent = `0 s of ${this.#minSeconds} s`;
        this.#showProblem("");
    }

    #accept(file, levels) {
        this.#url = URL.createObjectURL(file);
        element("playback").src = this.#url;
        element("recorded").hidden = false;
        const findings = levels?.findings() ?? [];
        if (levels && levels.seconds < this.#minSeconds) {
            const seconds = Math.floor(levels.seconds * 10) / 10;
            this.#refuse(`The recording is ${seconds} seconds long. At least ${this.#minSeconds} seconds are needed.`);
            showList(element("findings"), findings);
            element("check-state").textContent = "";
            return;
        }
        this.file = file;
        showList(element("findings"), findings);
        this.#check(file);
    }

    async #check(file) {
        const state = element("check-state");
        const form = new FormData();
        form.append("sample", file);
        this.#abort = new AbortController();
        const onProgress = (part) => {
            state.textContent =
                part < 1 ? `Sending it to the server for a check: ${Math.floor(part * 100)} %` : "The server checks it. This takes some seconds.";
        };
        onProgress(0);
        try {
            const report = await this.#calls.send(this.#address, form, onProgress, this.#abort.signal);
            const findings = findingsOf(report);
            showList(element("findings"), findings);
            state.textContent = findings.length ? "The server has checked the recording. It can be used." : "Nothing. The recording is good.";
            this.announce(state.textContent);
            this.onReport(report);
        } catch (error) {
            if (error.code === "cancelled") {
                return;
            }
            if (error.code === "logged_out") {
                this.onLoggedOut();
                return;
            }
            state.textContent = "";
            if (["unreachable", "inspection_failed"].includes(error.code)) {
                state.textContent = "The recording could not be checked now. It is checked when you send it.";
                return;
            }
            this.file = null;
            showList(element("findings"), error.problems.slice(1));
            this.#refuse(error.problems[0]);
        }
    }

    #onSamples(samples) {
        if (!this.#levels) {
            return;
        }
        const { level, isFull } = this.#levels.add(samples);
        element("level").value = Math.max(0, METER_DB + level);
        element("level-detail").textContent = isFull ? "too loud" : level < QUIET_DBFS ? "quiet" : "good";
        const { seconds } = this.#levels;
        const left = Math.max(0, Math.ceil(this.#minSeconds - seconds));
        element("time-bar").value = Math.min(seconds, this.#minSeconds);
        element("time").textContent = left ? `${Math.floor(seconds)} s, ${left} s to go` : `${Math.floor(seconds)} s, long enough`;
        if (seconds >= this.#nextAnnouncement) {
            this.announce(left ? `${left} seconds to go.` : "One minute. You may stop.");
            this.#nextAnnouncement = seconds < this.#minSeconds ? this.#minSeconds : Infinity;
        }
        if (seconds >= this.#maxBytes / BYTES_PER_SECOND - MAX_SECONDS_SPARE) {
            this.stop("The recording was stopped here, because a longer one is too large. It is long enough.");
        }
    }

    #showRecording(isRecording) {
        element("record").disabled = isRecording;
        element("file").disabled = isRecording;
        element("stop").disabled = !isRecording;
        element("level").value = 0;
        element("level-detail").textContent = "not recording";
    }

    #showProblem(text) {
        element("recording-problem").hidden = !text;
        element("recording-problem").textContent = text;
    }

    #refuse(text) {
        this.#showProblem(text);
        this.announce(text);
    }

    #acceptDrops(card) {
        for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
            // On the whole page, or a file that misses the card would replace the page.
            document.addEventListener(name, (event) => event.preventDefault());
        }
        card.addEventListener("dragover", () => element("drop").toggleAttribute("data-over", true));
        card.addEventListener("dragleave", () => element("drop").removeAttribute("data-over"));
        card.addEventListener("drop", (event) => {
            element("drop").removeAttribute("data-over");
            const [file] = event.dataTransfer.files;
            if (file && !this.isRecording) {
                this.take(file);
            }
        });
    }
}
