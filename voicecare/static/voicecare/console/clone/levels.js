/* Levels of a recording, as soon as it is made: too short, too quiet, distorted, noisy. Estimates; the server measures. */

const FRAME_S = 0.05;
const SILENCE_DBFS = -100;
const FULL_SCALE = 0.99;
const MAX_CLIPPED_RATIO = 0.001;
const MIN_LOUDNESS_DBFS = -35;
const MIN_RANGE_DB = 20; // of the loud and the quiet parts; the pauses of a clean recording are much quieter

export class Levels {
    #frameSize;
    #power = 0;
    #frameCount = 0;
    #run = 0;
    #clipped = 0;
    #samples = 0;
    #frames = []; // levels in dBFS
    #sampleRate;

    constructor(sampleRate) {
        this.#sampleRate = sampleRate;
        this.#frameSize = Math.round(sampleRate * FRAME_S);
    }

    get seconds() {
        return this.#samples / this.#sampleRate;
    }

    /** Adds the next samples, and returns their level in dBFS and whether they reach full scale. */
    add(samples) {
        let sum = 0;
        let isFull = false;
        for (const sample of samples) {
            const square = sample * sample;
            sum += square;
            if (Math.abs(sample) >= FULL_SCALE) {
                isFull = true;
                this.#run += 1;
                this.#clipped += this.#run === 3 ? 3 : this.#run > 3 ? 1 : 0; // single peaks are not distorted
            } else {
                this.#run = 0;
            }
            this.#power += square;
            this.#frameCount += 1;
            if (this.#frameCount === this.#frameSize) {
                this.#frames.push(decibels(this.#power / this.#frameSize));
                this.#power = this.#frameCount = 0;
            }
        }
        this.#samples += samples.length;
        return { level: decibels(sum / Math.max(1, samples.length)), isFull };
    }

    /** What could be better, as sentences. */
    findings() {
        const sorted = [...this.#frames].sort((first, second) => first - second);
        if (!sorted.length) {
            return [];
        }
        const [low, high] = [0.1, 0.9].map((part) => sorted[Math.floor(part * (sorted.length - 1))]);
        const isQuiet = high < MIN_LOUDNESS_DBFS;
        return [
            this.#clipped > this.#samples * MAX_CLIPPED_RATIO && "It is too loud and sounds distorted. Move away from the microphone, or lower its level.",
            isQuiet && "It is very quiet. Speak closer to the microphone, or raise its level.",
            high - low < MIN_RANGE_DB && "There may be noise in the background, or no pause in the speech. A quieter room gives a better voice.",
        ].filter(Boolean);
    }
}

function decibels(power) {
    return power > 0 ? Math.max(SILENCE_DBFS, 10 * Math.log10(power)) : SILENCE_DBFS;
}
