/* The token of this page: issued when it connects, kept while it is open, revoked when it is left.

When the browser vanishes, the token expires by itself within minutes. */

/** The server has refused, or did not answer. `reason` is "logged_out", "forbidden", "gone" or "unreachable". */
export class TokenError extends Error {
    constructor(reason) {
        super(reason);
        this.reason = reason;
    }
}

const REASONS = { 404: "gone", 410: "gone" };

/** What a refused call answered. A 403 without a code is Django's own, for a CSRF token of an ended or another login. */
export async function readRefusal(reply) {
    const answer = await reply.json().catch(() => ({}));
    return { code: reply.status === 403 ? "logged_out" : "", message: `HTTP ${reply.status}`, ...answer };
}

export class DeviceToken {
    #addresses;
    #csrfToken;
    #device = null;
    #timer;
    #keepEveryMs;
    #onLoggedOut;

    /** Calls `onLoggedOut` when the token cannot be kept because the user has logged out. `addresses` has `issue`, and `keep` and `revoke` with a device id of zeros in them. */
    constructor(addresses, csrfToken, keepEveryS, onLoggedOut) {
        this.#addresses = addresses;
        this.#csrfToken = csrfToken;
        this.#keepEveryMs = keepEveryS * 1000;
        this.#onLoggedOut = onLoggedOut;
    }

    /** Returns a new token. Throws TokenError. */
    async issue(format, takesMessages) {
        this.revoke();
        const body = new URLSearchParams({ format, takes_messages: String(takesMessages) });
        const reply = await this.#post(this.#addresses.issue, { body });
        const { device, token } = await reply.json();
        this.#device = device;
        clearInterval(this.#timer);
        // A page that cannot reach the server, or whose token was revoked, notices it by its socket.
        this.#timer = setInterval(async () => {
            try {
                await this.keep();
            } catch (error) {
                if (error.reason === "logged_out") {
                    this.#onLoggedOut();
                }
            }
        }, this.#keepEveryMs);
        return token;
    }

    /** Extends the time of the token. Throws TokenError. */
    async keep() {
        if (!this.#device) {
            throw new TokenError("gone");
        }
        await this.#post(this.#of(this.#addresses.keep));
    }

    /** Revokes the token. Works while the page is closed, too. */
    revoke() {
        clearInterval(this.#timer);
        if (this.#device) {
            this.#post(this.#of(this.#addresses.revoke), { keepalive: true }).catch(() => {});
            this.#device = null;
        }
    }

    #of(address) {
        return address.replace("00000000-0000-0000-0000-000000000000", this.#device);
    }

    async #post(address, options = {}) {
        let reply;
        try {
            reply = await fetch(address, {
                method: "POST",
                headers: { "X-CSRFToken": this.#csrfToken },
                redirect: "error",
                ...options,
            });
        } catch {
            throw new TokenError("unreachable");
        }
        if (reply.status >= 500) {
            throw new TokenError("unreachable");
        }
        if (!reply.ok) {
            const { code } = await readRefusal(reply);
            throw new TokenError(REASONS[reply.status] ?? code);
        }
        return reply;
    }
}
