"""The admin's first page and a patient's page of usage: what they show, as data, and to whom.

Nobody sees here what the change lists would not show them: a part without permission is None and is left out. The
number of queries is the same however much has happened; figures come from daily sums, never from events.
"""
