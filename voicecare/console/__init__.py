"""The console (docs/console.md): pages for clinicians, who need not be staff.

`patient_views` and `conversation_views` have the page of a patient: voices, budget, usage, devices, incidents, messages
and conversations. `patient_page` reads what it shows, and `lines` says how a speech is shown. `views` has the device
console, a page that is a device, so that clinicians hear what a patient hears, and the calls of its scripts. `devices`
issues and revokes its tokens. `access` decides who may open what, and `pages` is what all pages share.
`clone_views` has the page that makes a voice clone, and `passages` the texts to read aloud. The scripts of
the device console are in `static/voicecare/console/` and use the device protocol (docs/protocol.md) as every device
does. This package is part of the composition root, so it may import every app.
"""
