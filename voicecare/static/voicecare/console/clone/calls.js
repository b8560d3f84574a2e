/* The calls to the server. All of them throw CallError. */

/** The server has refused, or did not answer.

`code` is a code of the server, or "logged_out" or "unreachable". `message` says in plain words what to do,
and `problems` has the reasons one by one. */
export class CallError extends Error {
    constructor(code, problems) {
        super(problems.join(" "));
        this.code = code;
        this.problems = problems;
    }
}

const UNREACHABLE = "The server does not answer. Check the connection, then try again.";
const OWN_WORDS = {
    logged_out: "You are logged out, or have logged in again on another page.",
    forbidden: "You may not make voice clones. Ask an administrator for the permission.",
};

export class Calls {
    #csrfToken;

    constructor(csrfToken) {
        this.#csrfToken = csrfToken;
    }

    /** Sends a form with a file. `onProgress` gets the part (0..1) that was sent. Resolves with the answer. */
    send(address, form, onProgress, signal) {
        return new Promise((resolve, reject) => {
            const request = new XMLHttpRequest(); // fetch reports no progress
            request.open("POST", address);
            request.responseType = "json";
            request.setRequestHeader("X-CSRFToken", this.#csrfToken);
            request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
            request.upload.onload = () => onProgress(1);
            request.onload = () => {
                if (request.status < 400) {
                    resolve(request.response);
                } else {
                    reject(refusal(request.status, request.response));
                }
            };
            request.onerror = () => reject(new CallError("unreachable", [UNREACHABLE]));
            request.onabort = () => reject(new CallError("cancelled", []));
            signal?.addEventListener("abort", () => request.abort());
            request.send(form);
        });
    }

    async call(method, address) {
        const headers = { "X-CSRFToken": this.#csrfToken };
        let reply;
        try {
            reply = await fetch(address, { method, headers, redirect: "error", cache: "no-store" });
        } catch {
            throw new CallError("unreachable", [UNREACHABLE]);
        }
        const answer = reply.status === 204 ? null : await reply.json().catch(() => null);
        if (!reply.ok) {
            throw refusal(reply.status, answer);
        }
        return answer;
    }
}

function refusal(status, answer) {
    // A 403 without one of our codes is for a CSRF token of an ended or another login.
    const code = status === 403 ? (answer?.code === "forbidden" ? "forbidden" : "logged_out") : answer?.code;
    if (OWN_WORDS[code]) {
        return new CallError(code, [OWN_WORDS[code]]);
    }
    if (status === 413) {
        return new CallError("too_large", [answer?.detail ?? "The file is too large. One to two minutes are enough."]);
    }
    if (status === 404) {
        return new CallError("gone", ["This patient was archived, or is not in your care any longer."]);
    }
    if (answer?.problems) {
        return new CallError(code, [...answer.problems.map((problem) => problem.detail), ...answer.warnings]);
    }
    if (answer?.detail) {
        return new CallError(code, [answer.detail]);
    }
    return new CallError("unreachable", [UNREACHABLE]);
}
