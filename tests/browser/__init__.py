"""The admin in a real browser (Chromium, driven by Playwright) and on a real server."""
