"""REST API of voice clones: upload, status, retry and withdrawal, and the synchronisation of stock voices.

Stock voices are the voices that the provider offers to all customers. `urls` is included by voicecare.urls. Views
validate the input and call one function of `jobs`, `consent` or `voices`. This package imports all other parts of
cloning, and voicecare.api.
"""
