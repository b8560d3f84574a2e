/* Reloads the element with `data-poll` every ten seconds, or every `data-poll-seconds`, while the page is visible, and
   stops when the user is logged out. Replaces its content only if it has changed, and announces changed counts to screen
   readers. */
"use strict";
{
    const part = document.querySelector("[data-poll]");
    const everyS = Number(part?.dataset.pollSeconds ?? 10);
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

    /** Finds the same link or button in the new content. */
    function selector({ id, attributes: { href } }) {
        return id ? `#${CSS.escape(id)}` : `a[href="${CSS.escape(href?.value ?? "")}"]`;
    }

    function replace(html) {
        const fresh = document.createElement("template");
        fresh.innerHTML = html;
        if (fresh.innerHTML === part.innerHTML) {
            return;
        }
        const focused = part.contains(document.activeElement) ? selector(document.activeElement) : null;
        const before = news();
        part.replaceChildren(fresh.content);
        if (focused) {
            (part.querySelector(focused) || document.getElementById("content-start")).focus();
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
        show(["You are logged out. This page is no longer updated. ", link]);
    }

    async function poll() {
        clearTimeout(timer);
        if (ended || document.hidden) {
            return; // the next `visibilitychange` polls again
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
            show(["The server does not answer. Retrying."]);
        }
        clearTimeout(timer); // another poll may be running
        timer = setTimeout(poll, everyS * 1000);
    }

    if (part) {
        timer = setTimeout(poll, everyS * 1000);
        document.addEventListener("visibilitychange", poll);
    }
}
