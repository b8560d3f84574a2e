"""The admin in a real browser: Debian's chromium, driven by Playwright, on a server of its own."""
