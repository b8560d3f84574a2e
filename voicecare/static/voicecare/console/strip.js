/* The strip of the last 20 s: bytes as they arrive, the sound that is played, and gaps in it. */

const SECONDS = 20;
const BUCKET_MS = 100;
const BUCKETS = (SECONDS * 1000) / BUCKET_MS;
const FULL_BYTES = 16_384; // a bar of the full height

export class Strip {
    #canvas;
    #buckets = Array.from({ length: BUCKETS }, () => ({ bytes: 0, level: 0, isGap: false }));
    #newest = Math.floor(performance.now() / BUCKET_MS);
    #isDirty = true;

    constructor(canvas) {
        this.#canvas = canvas;
        setInterval(() => this.#draw(), BUCKET_MS);
    }

    bytes(count) {
        this.#bucket().bytes += count;
    }

    level(level) {
        const bucket = this.#bucket();
        bucket.level = Math.max(bucket.level, level);
    }

    gap() {
        this.#bucket().isGap = true;
    }

    #bucket() {
        const now = Math.floor(performance.now() / BUCKET_MS);
        for (let number = Math.max(this.#newest + 1, now - BUCKETS + 1); number <= now; number++) {
            const old = this.#buckets[number % BUCKETS];
            this.#isDirty ||= old.bytes > 0 || old.level > 0 || old.isGap;
            this.#buckets[number % BUCKETS] = { bytes: 0, level: 0, isGap: false };
        }
        this.#newest = now;
        const bucket = this.#buckets[now % BUCKETS];
        this.#isDirty ||= this.#buckets.some(({ bytes, level, isGap }) => bytes > 0 || level > 0 || isGap);
        return bucket;
    }

    #draw() {
        this.#bucket();
        if (!this.#isDirty || document.hidden) {
            return;
        }
        this.#isDirty = false;
        const { clientWidth: width, clientHeight: height } = this.#canvas;
        this.#canvas.width = width * devicePixelRatio;
        this.#canvas.height = height * devicePixelRatio;
        const pen = this.#canvas.getContext("2d");
        pen.scale(devicePixelRatio, devicePixelRatio);
        const colors = getComputedStyle(this.#canvas);
        const step = width / BUCKETS;
        const half = height / 2;
        for (let index = 0; index < BUCKETS; index++) {
            const { bytes, level, isGap } = this.#buckets[(this.#newest + 1 + index) % BUCKETS];
            const left = index * step;
            if (isGap) {
                pen.fillStyle = colors.getPropertyValue("--chart-failed");
                pen.fillRect(left, 0, step, height);
            }
            pen.fillStyle = colors.getPropertyValue("--chart-live");
            const bar = Math.min(1, Math.sqrt(bytes / FULL_BYTES)) * half;
            pen.fillRect(left, half - bar, step * 0.8, bar);
            pen.fillStyle = colors.getPropertyValue("--chart-saved");
            pen.fillRect(left, half, step * 0.8, Math.min(1, level) * half);
        }
    }
}
