/* The page: its buttons, what it shows, and how its parts work together. */

import { Conversation } from "./conversation.js";
import { DeviceSocket } from "./device_socket.js";
import { DeviceToken, readRefusal } from "./device_token.js";
import { automaticFormat, refusal } from "./formats.js";
import { Output } from "./output.js";
import { ProtocolLog } from "./protocol_log.js";
import { NoticeList, SpeechList } from "./speech_list.js";
import { Strip } from "./strip.js";

const FIGURES_EVERY_MS = 200;
const TOKEN_PROBLEMS = {
    forbidden: "You may not open a console for this patient. Ask an administrator for the permission.",
    gone: "This patient was archived, or is not in your care any longer.",
    unreachable: "The server does not answer. Check the connection, then press Start again.",
};

const element = (id) => document.getElementById(id);
const { dataset } = element("console");
const csrfToken = document.querySelector("#console [name=csrfmiddlewaretoken]").value;
const goalMs = Number(dataset.goalMs);

const token = new DeviceToken(dataset, csrfToken, Number(dataset.keepEveryS), () => {
    stop("");
    showLoggedOut();
});
const log = new ProtocolLog(element("log"));
const strip = new Strip(element("strip"));
const speeches = new SpeechList(element("speeches"), element("no-speeches"), goalMs, (text) => speak(text, false));
const notices = new NoticeList(element("notices"), element("no-notices"));

let socket = null;
let output = null;
let conversation = null;
let received = { bytes: 0, frames: 0 };
let gaps = { count: 0, seconds: 0 };

// What the page shows

function announce(text) {
    element("announcement").textContent = text;
}

function showState(state, tone, detail = "") {
    element("state").className = tone ? `badge badge-${tone}` : "badge";
    element("state").textContent = state;
    element("state-detail").textContent = detail;
    announce(`${state}. ${detail}`);
}

/** Text, or nodes. None hides the problem. */
function showProblem(...content) {
    const problem = element("problem");
    problem.hidden = content.length === 0;
    problem.replaceChildren(...content);
    if (content.length) {
        announce(problem.textContent);
    }
}

function showLoggedOut() {
    const link = document.createElement("a");
    link.href = dataset.logIn;
    link.textContent = "Log in again";
    showProblem("You are logged out, or have logged in again on another page. ", link);
}

function setTalking(isTalking) {
    for (const control of document.querySelectorAll("#speak, #interrupt, #end, [data-phrase], .console-again")) {
        control.disabled = !isTalking;
    }
}

function setRunning(isRunning) {
    for (const id of ["start", "format", "greeting", "takes-messages"]) {
        element(id).disabled = isRunning;
    }
    if (!isRunning) {
        setTalking(false);
    }
}

function showFigures() {
    element("received").textContent =
        `${received.bytes.toLocaleString("en")} bytes in ${received.frames.toLocaleString("en")} frames`;
    element("ahead").textContent = `${(output?.aheadSeconds ?? 0).toFixed(1)} s`;
    element("gaps").textContent = gaps.count ? `${gaps.count}, together ${gaps.seconds.toFixed(2)} s` : "none";
}

const page = {
    onStarted({ companion, voice, format }) {
        showState("Connected", "good", `${companion} speaks in the voice ${voice.name} (${voice.source}), as ${format}.`);
        setTalking(true);
    },
    onEnded() {
        stop("The conversation was ended.");
    },
    onSpeech(speech) {
        speeches.show(speech);
        if (speech.firstAudioMs !== null) {
            element("first-audio").textContent = `${Math.round(speech.firstAudioMs)} ms`;
        }
        if (speech.state === "failed" || speech.state === "queued") {
            announce(`${speech.state}: ${speech.detail}`);
        }
    },
    onNotice(text) {
        notices.show(text);
        announce(text);
    },
    onBytes(count) {
        received.bytes += count;
        received.frames += 1;
        strip.bytes(count);
        log.audio(count);
    },
    onGap(seconds) {
        gaps.count += 1;
        gaps.seconds += seconds;
        strip.gap();
    },
    onHeard(ms) {
        element("first-sound").textContent = `${ms} ms`;
    },
    onSilent(ms) {
        element("silent-after").textContent = `${ms} ms`;
        announce(`Interrupted. Silent after ${ms} milliseconds.`);
    },
    onProblem(text) {
        showProblem(text);
    },
};

// Starting and stopping

async function start() {
    const format = element("format").value || automaticFormat();
    showProblem(...[refusal(format)].filter(Boolean));
    if (refusal(format)) {
        return;
    }
    setRunning(true);
    showState("Connecting", "");
    output = new Output(format); // in the click: browsers play no sound before one
    output.onLevel = (level) => strip.level(level);
    try {
        await output.resume();
        const secret = await token.issue(format, element("takes-messages").checked);
        connect(secret, format);
    } catch (error) {
        stop("");
        if (error.reason === "logged_out") {
            showLoggedOut();
        } else {
            showProblem(TOKEN_PROBLEMS[error.reason] ?? `This browser cannot play sound: ${error.message}`);
        }
    }
}

function connect(secret, format) {
    const address = new URL(dataset.socket, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const send = (message) => {
        const isSent = socket?.isOpen ?? false;
        if (isSent) {
            log.sent(message);
            socket.send(message);
        }
        return isSent;
    };
    conversation = new Conversation(send, output, format, element("greeting").checked, page);
    socket = new DeviceSocket(address.href, secret, () => token.keep(), {
        onOpen() {
            log.event("connected");
            showProblem();
            conversation.onConnected();
        },
        onText(message) {
            if (message.type !== "pong") {
                log.received(message);
            }
            conversation.onMessage(message);
        },
        onAudio: (bytes) => conversation.onAudio(bytes),
        onLost(code, reason) {
            log.event(`connection lost: ${code} ${reason}`.trim());
            showState("Connecting again", "warning", "The connection was lost. This page connects again by itself.");
            setTalking(false);
            conversation.onLost();
        },
        onFinal(message) {
            log.event("connection ended by the server");
            stop("");
            if (message === "logged_out") {
                showLoggedOut();
            } else {
                showProblem(message);
            }
        },
    });
}

function stop(detail) {
    token.revoke();
    socket?.close();
    conversation?.close();
    output?.close();
    socket = conversation = output = null;
    setRunning(false);
    showState("Not connected", "", detail);
}

function speak(text, byWords) {
    if (text.trim() && !element("speak").disabled) {
        showProblem();
        conversation.speak(text, byWords);
    }
}

// Buttons and keys

element("format").addEventListener("change", ({ target }) => {
    element("format-detail").textContent = target.value ? refusal(target.value) : automaticFormat();
});
element("format-detail").textContent = automaticFormat();
element("start").addEventListener("click", start);
element("end").addEventListener("click", () => conversation?.end());
element("interrupt").addEventListener("click", () => conversation?.interrupt());
element("speak-form").addEventListener("submit", (event) => {
    event.preventDefault();
    speak(element("text").value, element("stream").checked);
});
element("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        speak(event.target.value, element("stream").checked);
    }
});
document.addEventListener("keydown", ({ key }) => key === "Escape" && conversation?.interrupt());
for (const button of document.querySelectorAll("[data-phrase]")) {
    button.addEventListener("click", () => speak(button.textContent, false));
}
element("clear-log").addEventListener("click", () => log.clear());
element("copy-log").addEventListener("click", async () => {
    try {
        await navigator.clipboard.writeText(log.text);
        element("log-detail").textContent = "Copied.";
    } catch {
        getSelection().selectAllChildren(element("log"));
        element("log-detail").textContent = "The log is selected. Press Ctrl+C to copy it.";
    }
});
for (const button of document.querySelectorAll("[data-fault]")) {
    button.addEventListener("click", () => chooseFault(button));
}
// A click before would have been lost.
for (const button of document.querySelectorAll("#start, #copy-log, #clear-log, [data-fault]")) {
    button.disabled = false;
}

async function chooseFault(button) {
    try {
        const reply = await fetch(button.dataset.fault, { method: "POST", headers: { "X-CSRFToken": csrfToken } });
        if (!reply.ok) {
            const { code, message } = await readRefusal(reply);
            if (code === "logged_out") {
                stop("");
                showLoggedOut();
                return;
            }
            throw new Error(message);
        }
        for (const other of document.querySelectorAll("[data-fault]")) {
            other.setAttribute("aria-pressed", String(other === button));
        }
        log.event(`sandbox fault: ${button.textContent}`);
    } catch (error) {
        showProblem(`The fault was not chosen. ${error.message}`);
    }
}

// Leaving. A page that comes back from the browser's memory starts anew.

window.addEventListener("pagehide", () => socket && stop("The page was left."));
setInterval(showFigures, FIGURES_EVERY_MS);
