/* Lets each player with `data-voice` play the voice that is chosen in the field of this name, in the chosen language. The
   address of a preview has the nil UUID in place of the voice. */
"use strict";
document.addEventListener("DOMContentLoaded", () => {
    const NIL = "00000000-0000-0000-0000-000000000000";
    const language = document.querySelector("select[name=language]");

    for (const player of document.querySelectorAll("audio[data-voice]")) {
        const choice = document.querySelector(`select[name=${player.dataset.voice}]`);
        const update = () => {
            player.pause();
            player.hidden = !choice.value;
            if (choice.value) {
                const query = language ? `?language=${encodeURIComponent(language.value)}` : "";
                player.src = player.dataset.address.replace(NIL, choice.value) + query;
            } else {
                player.removeAttribute("src");
            }
        };
        choice.addEventListener("change", update);
        language?.addEventListener("change", update);
        update();
    }
});
