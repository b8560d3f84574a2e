/* The page: the form with the consent, the upload, the state of the clone, and the choice of the voice. */

import { Calls } from "./calls.js";
import { Recording } from "./recording.js";
import { sentencesOf, showList } from "./report.js";

const POLL_EVERY_MS = 1000;
const NO_ID = "00000000-0000-0000-0000-000000000000";
const CHOICES = ["use", "keep", "revert", "retry", "again"];
const STATES = {
    pending: ["Waiting", "", "The voice will be made in a moment."],
    uploading: ["In progress", "", "The speech provider makes the voice."],
    ready: ["Ready", "good", "Listen to both voices, then choose one."],
    failed: ["Failed", "bad", ""],
    withdrawing: ["Deleted", "", "The voice and the recording are being deleted. The current voice stays."],
    withdrawn: ["Deleted", "", "The voice and the recording are deleted. The current voice stays."],
};

const element = (id) => document.getElementById(id);
const { dataset } = element("clone");
const calls = new Calls(document.querySelector("#clone [name=csrfmiddlewaretoken]").value);
const recording = new Recording(calls, dataset);

let job = dataset.job;
let timer;

// What the page shows

function announce(text) {
    element("announcement").textContent = text;
}

function showProblem(id, ...content) {
    element(id).hidden = content.length === 0;
    element(id).replaceChildren(...content);
    if (content.length) {
        announce(element(id).textContent);
    }
}

function showError(id, error) {
    if (error.code !== "logged_out") {
        showProblem(id, error.message);
        return;
    }
    const link = document.createElement("a");
    link.href = dataset.logIn;
    link.textContent = "Log in again";
    // A recording that was made here would be lost with this page.
    link.target = "_blank";
    showProblem(id, `${error.message} `, link);
}

function showState(badge, tone, detail) {
    const isNew = element("state").textContent !== badge;
    element("state").className = tone ? `badge badge-${tone}` : "badge";
    element("state").textContent = badge;
    element("state-detail").textContent = detail;
    if (isNew) {
        announce(`${badge}. ${detail}`);
    }
}

function offer(...names) {
    for (const name of CHOICES) {
        element(name).hidden = !names.includes(name);
    }
}

function showProgress(isShown) {
    element("making").hidden = isShown;
    element("progress").hidden = !isShown;
    if (isShown) {
        element("progress").focus();
    }
}

const addressOf = (name, id = job) => dataset[name].replace(NO_ID, id);

// The form

recording.announce = announce;
recording.onLoggedOut = () => showError("recording-problem", { code: "logged_out", message: "You are logged out." });
recording.onReport = (report) => {
    element("noise").hidden = !report?.noise_removal_helps;
    element("remove-noise").checked = false;
};

function missingField() {
    const texts = {
        "consent-by": "Enter whose voice it is.",
        name: "Enter a name for the voice.",
        consent: "Confirm that the person who speaks has agreed. Without that, nothing is stored.",
    };
    return Object.entries(texts).find(([id]) => !element(id).checkValidity() || (element(id).type === "text" && !element(id).value.trim()));
}

async function make(event) {
    event.preventDefault();
    showProblem("form-problem");
    const missing = missingField();
    if (!recording.file) {
        showProblem("form-problem", recording.isRecording ? "Stop the recording first." : "Record the voice, or choose a file, first.");
        element(recording.isRecording ? "stop" : "record").focus();
        return;
    }
    if (missing) {
        showProblem("form-problem", missing[1]);
        element(missing[0]).focus();
        return;
    }
    const form = new FormData(element("consent-form"));
    form.set("consent", "true");
    form.set("use_when_ready", "false");
    form.append("sample", recording.file);
    element("make").disabled = true;
    showProgress(true);
    offer();
    showProblem("problem");
    element("report").hidden = element("compare").hidden = true;
    element("upload").hidden = false;
    try {
        const accepted = await calls.send(dataset.make, form, showUpload);
        job = accepted.id;
        recording.clear();
        element("consent-form").reset();
        await poll();
    } catch (error) {
        showProgress(false);
        showError("form-problem", error);
        element("make").focus();
    } finally {
        element("make").disabled = false;
        element("upload").hidden = true;
    }
}

function showUpload(part) {
    element("upload-bar").value = part;
    element("upload-detail").textContent = `${Math.floor(part * 100)} %`;
    if (part < 1) {
        showState("Sending", "", "The recording is being sent.");
    } else {
        showState("Checking", "", "The server checks the recording. This takes some seconds.");
    }
}

// The state of the clone

async function poll() {
    clearTimeout(timer);
    let clone;
    try {
        clone = await calls.call("GET", addressOf("status"));
        showProblem("problem");
    } catch (error) {
        showError("problem", error);
        if (error.code === "unreachable") {
            timer = setTimeout(poll, POLL_EVERY_MS);
        }
        return;
    }
    showClone(clone);
    if (["pending", "uploading"].includes(clone.status)) {
        timer = setTimeout(poll, POLL_EVERY_MS);
    }
}

function showClone(clone) {
    const [badge, tone, detail] = STATES[clone.status];
    const isUsable = clone.status === "ready" && clone.preview !== null && !clone.requires_verification;
    showState(badge, tone, clone.error?.message ?? detail);
    if (clone.report) {
        showList(element("report-list"), sentencesOf(clone.report));
        element("report").hidden = false;
    }
    element("compare").hidden = !isUsable;
    if (isUsable) {
        const current = element("current-voice");
        element("new-voice").src = addressOf("preview", clone.voice);
        if (current) {
            current.src = addressOf("preview", current.dataset.voice);
        }
        offer("use", "keep", "again");
    } else if (clone.status === "failed") {
        offer("retry", "again");
    } else {
        offer(...(clone.status === "pending" || clone.status === "uploading" ? [] : ["again"]));
    }
}

// The choice

/** Carries out one choice. A failure is shown, and the choice can be made again. */
async function choose(method, address, then) {
    showProblem("problem");
    for (const name of CHOICES) {
        element(name).disabled = true;
    }
    try {
        await calls.call(method, address);
        await then();
    } catch (error) {
        showError("problem", error);
    } finally {
        for (const name of CHOICES) {
            element(name).disabled = false;
        }
        element("progress").focus();
    }
}

function showTalk(isShown) {
    if (element("talk")) {
        element("talk").hidden = !isShown;
    }
}

element("use").addEventListener("click", () =>
    choose("POST", addressOf("use"), () => {
        showState("In use", "good", "The patient hears the new voice from the next conversation on.");
        offer("revert", "again");
        showTalk(true);
    }),
);
element("revert").addEventListener("click", () =>
    choose("POST", addressOf("revert"), () => {
        showState("Not in use", "", "The patient hears the previous voice from the next conversation on.");
        offer("use", "again");
        showTalk(false);
    }),
);
element("retry").addEventListener("click", () => choose("POST", addressOf("retry"), poll));
element("keep").addEventListener("click", () => element("keep-dialog").showModal());
element("keep-dialog").addEventListener("close", ({ target }) => {
    if (target.returnValue === "delete") {
        choose("DELETE", addressOf("status"), poll);
    }
    target.returnValue = "";
});
element("again").addEventListener("click", () => {
    clearTimeout(timer);
    if (element("state").textContent === "In use") {
        location.reload(); // the voice that is used now is another one
        return;
    }
    showTalk(false);
    showProgress(false);
    element("record").focus();
});
element("consent-form").addEventListener("submit", make);
element("make").disabled = false; // a click before would have sent the form to this page
window.addEventListener("beforeunload", (event) => {
    if (recording.isRecording || recording.file) {
        event.preventDefault();
    }
});

if (job) {
    showProgress(true);
    poll();
}
