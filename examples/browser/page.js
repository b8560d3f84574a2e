/* The page: its fields and buttons, and what it shows. */

import { Device } from "./device.js";

const element = (id) => document.getElementById(id);
let device = null;

function show(state) {
    element("state").textContent = state;
    for (const button of element("speak").querySelectorAll("button")) {
        button.disabled = !device?.isConnected;
    }
}

element("connect").addEventListener("submit", (event) => {
    event.preventDefault();
    device?.close();
    device = new Device(element("url").value, element("token").value, {
        onState: show,
        onSpeech: (outcome) => {
            const item = document.createElement("li");
            item.textContent = outcome;
            element("log").append(item);
        },
    });
    device.connect(); // after a click, or browsers play no sound
});

element("speak").addEventListener("submit", (event) => {
    event.preventDefault();
    device.speak(element("text").value);
    element("text").value = "";
});

element("interrupt").addEventListener("click", () => device.interrupt());
