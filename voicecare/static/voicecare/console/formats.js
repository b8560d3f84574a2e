/* The audio formats of the device protocol (docs/protocol.md), and which of them this browser can play. */

const MP3_TYPE = "audio/mpeg";

/** MediaSource. Safari on phones has it under another name. */
export const MediaSourceClass = window.ManagedMediaSource ?? window.MediaSource;

/** The sample rate of a format without compression, or null for MP3. */
export function sampleRate(format) {
    return format.startsWith("mp3") ? null : Number(format.split("_")[1]);
}

export function canPlay(format) {
    return sampleRate(format) !== null || Boolean(MediaSourceClass?.isTypeSupported(MP3_TYPE));
}

/** The format for "automatic": MP3, which the patients' devices have by default and which is cached, or else PCM. */
export function automaticFormat() {
    return canPlay("mp3_44100_128") ? "mp3_44100_128" : "pcm_24000";
}

/** Why this browser cannot play a format, and what to do. Empty if it can. */
export function refusal(format) {
    if (canPlay(format)) {
        return "";
    }
    return "This browser cannot play MP3 as it arrives: it has no MediaSource for it. Choose a PCM format, or automatic.";
}

/** Samples from -1 to 1. `bytes` has whole samples. */
export function decode(format, bytes) {
    if (format.startsWith("ulaw")) {
        return Float32Array.from(bytes, muLawSample);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    return Float32Array.from({ length: bytes.byteLength / 2 }, (_, index) => view.getInt16(2 * index, true) / 32768);
}

export function bytesPerSample(format) {
    return format.startsWith("ulaw") ? 1 : 2;
}

/** G.711: the sign, three bits of exponent and four of mantissa, all inverted. */
function muLawSample(byte) {
    const value = ~byte & 0xff;
    const magnitude = ((((value & 0x0f) << 3) + 0x84) << ((value & 0x70) >> 4)) - 0x84;
    return (value & 0x80 ? -magnitude : magnitude) / 32768;
}

export { MP3_TYPE };
