/* Reads the part of the page with `data-poll` again every ten seconds while somebody looks at it, and stops when they
   are logged out. It is replaced only when it has changed, and what has changed is said to a screen reader. */
"use strict";
{
    const EVERY_MS = 10000;
    const part = document.querySelector("[data-poll]");
    let timer;
    let ended = false;

    function news() {
        const counts = [...part.querySelectorAll("[data-news]")];
        return counts.map((count) => `${count.textContent} ${count.dataset.news}`).join(", ");
    }

    function show(state) {
        const line = document.querySelector("[data-poll-state]");
        line.hidden = !state;
        line.replaceChildren(...(state || []));
    }

    function replace(html) {
        const fresh = document.createElement("template");
        fresh.innerHTML = html;
        if (fresh.innerHTML === part.innerHTML) {
            return;
        }
        const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
        const before = news();
        part.replaceChildren(fresh.content);
        if (focused) {
            (part.querySelector(`a[href="${CSS.escape(focused)}"]`) || document.getElementById("content-start")).focus();
        }
        if (news() !== before) {
            document.querySelector("[data-poll-news]").textContent = news();
        }
    }

    function end() {
        ended = true;
        const link = document.createElement("a");
        link.href = `${part.dataset.login}?next=${encodeURIComponent(location.pathname)}`;
        link.textContent = "Log in again";
        show(["You are logged out, and this page is no longer kept up to date. ", link]);
    }

    async function look() {
        clearTimeout(timer);
        if (ended || document.hidden) {
            return; // the next `visibilitychange` looks again
        }
        try {
            const reply = await fetch(part.dataset.poll, { redirect: "manual", headers: { Accept: "text/html" } });
            if (reply.type === "opaqueredirect" || reply.status === 403) {
                end();
                return;
            }
            if (!reply.ok) {
                throw new Error(String(reply.status));
            }
            replace(await reply.text());
            show(null);
        } catch {
            show(["The server does not answer; this page is tried again every ten seconds."]);
        }
        clearTimeout(timer); // another look may have been under way
        timer = setTimeout(look, EVERY_MS);
    }

    if (part) {
        timer = setTimeout(look, EVERY_MS);
        document.addEventListener("visibilitychange", look);
    }
}
