/* Makes a WAV file (16 bits, mono, 44.1 kHz) of the samples of a recording. */

export const RATE = 44100;
export const BYTES_PER_SECOND = RATE * 2;
const HEADER_BYTES = 44;

/** `parts` are Float32Arrays at `sampleRate`. Returns a Blob. */
export async function wavOf(parts, sampleRate) {
    return encode(sampleRate === RATE ? joined(parts) : await resampled(joined(parts), sampleRate));
}

function joined(parts) {
    const samples = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
        samples.set(part, at);
        at += part.length;
    }
    return samples;
}

async function resampled(samples, sampleRate) {
    const context = new OfflineAudioContext(1, Math.max(1, Math.round((samples.length * RATE) / sampleRate)), RATE);
    const buffer = context.createBuffer(1, Math.max(1, samples.length), sampleRate);
    buffer.copyToChannel(samples, 0);
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    source.start();
    return (await context.startRendering()).getChannelData(0);
}

function encode(samples) {
    const view = new DataView(new ArrayBuffer(HEADER_BYTES + samples.length * 2));
    const text = (at, letters) => [...letters].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
    text(0, "RIFF");
    view.setUint32(4, HEADER_BYTES - 8 + samples.length * 2, true);
    text(8, "WAVEfmt ");
    view.setUint32(16, 16, true);
    view.setUint16(20, 1, true); // PCM
    view.setUint16(22, 1, true); // channels
    view.setUint32(24, RATE, true);
    view.setUint32(28, BYTES_PER_SECOND, true);
    view.setUint16(32, 2, true); // bytes of a sample
    view.setUint16(34, 16, true); // bits of a sample
    text(36, "data");
    view.setUint32(40, samples.length * 2, true);
    samples.forEach((sample, index) => {
        const limited = Math.max(-1, Math.min(1, sample));
        view.setInt16(HEADER_BYTES + index * 2, limited * (limited < 0 ? 0x8000 : 0x7fff), true);
    });
    return new Blob([view], { type: "audio/wav" });
}
