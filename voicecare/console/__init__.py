"""The device console (docs/console.md): a page that is a device, so that clinicians hear what a patient hears.

`views` has the pages and the calls of the page's scripts, `access` decides who may open them, and `devices` issues and
revokes the tokens of the page. The scripts are in `static/voicecare/console/`. They use the device protocol
(docs/protocol.md) as every device does. This package is part of the composition root, so it may import every app.
"""
