/* Shows each button with `data-copy` and lets it copy the text of the element with this id. Until then a click would do
   nothing, so the page hides the button. Reloading the page opens `data-address` instead, because it would send the form
   again. */
"use strict";
{
    const state = document.querySelector("[data-copy-state]");

    function select(element) {
        getSelection().selectAllChildren(element);
    }

    /** Copies the text. Browsers have a clipboard only on pages with HTTPS, and of this machine. */
    async function copy(element) {
        if (navigator.clipboard) {
            await navigator.clipboard.writeText(element.textContent);
        } else if (!document.execCommand("copy")) {
            throw new Error("The browser has refused to copy.");
        }
    }

    for (const button of document.querySelectorAll("[data-copy]")) {
        button.addEventListener("click", async () => {
            const element = document.getElementById(button.dataset.copy);
            select(element);
            try {
                await copy(element);
                button.textContent = state.textContent = "Copied";
            } catch {
                state.textContent = "The text is selected. Press Ctrl+C to copy it.";
                button.textContent = "Press Ctrl+C";
            }
        });
        button.hidden = false;
    }
    history.replaceState(null, "", document.querySelector("[data-address]").dataset.address);
}
