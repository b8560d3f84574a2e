"""REST endpoints of usage: daily and monthly usage, the account's quota, and a patient's budget.

`urls` has the routes, `views` the endpoints and `serializers` their parameters and responses. May import all of usage,
voicecare.api and the shared packages of voicecare.
"""
