/* The measurements of the server in plain words. */

const QUIET_ROOM_DB = 30;
const CLEAN_DB = 23; // below it, the server warns of noise
const MAX_CLIPPED_RATIO = 0.001;

/** The sentences about a recording: what was measured, what was repaired, and what could be better. */
export function sentencesOf(report) {
    const speech = Math.round(report.duration_s * report.speech_ratio);
    return [
        `It is ${Math.floor(report.duration_s)} seconds long, and ${speech} seconds of it are speech.`,
        report.snr_db >= CLEAN_DB &&
            (report.snr_db >= QUIET_ROOM_DB ? "The room was quiet." : "There is hardly any noise in the background."),
        report.clipping_ratio <= MAX_CLIPPED_RATIO && "The level was not too loud.",
        ...(report.repairs ?? []).map((repair) => `Repaired: ${repair}`),
        ...report.warnings,
    ].filter(Boolean);
}

/** What could be better, and what will be repaired. */
export function findingsOf(report) {
    return [...report.warnings, ...report.repairs.map((repair) => `Will be repaired: ${repair}`)];
}

export function showList(list, sentences) {
    list.replaceChildren(
        ...sentences.map((sentence) => {
            const item = document.createElement("li");
            item.textContent = sentence;
            return item;
        }),
    );
}
