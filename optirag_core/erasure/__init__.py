"""A user is erased from a workspace, in place, so that everybody else's rows, scores and lineage stay.

    user.py        what stays of an id: its hash, so that raw files and later events do not bring the user back
    journal.py     erasures/<hash>.json: created first, and ended last
    events.py      the event log: tombstones in place of the user's events
    runs.py        score runs: their files, requests and attempts
    artifacts.py   data set, evidence, retriever, index, and every other table with user ids
    erase.py       all of it in order

The rule: an artifact that holds the user keeps its version and gets new files, and with them another digest. Its
manifest lists the digests that it had (`replaces`), and every manifest that names one of them as a parent is rewritten
to the new one, down to the last child (`optirag_core.lineage`). So jobs and the endpoint go on with what is there. What
cannot be rewritten, because it has learned from the user (weights, heads, a policy), is marked in its manifest
(`held_erased_user`). Training jobs make it anew by themselves, as its recipe, which the parents' digests are part of,
is another one now.

Killed at any moment, the same command finishes: a folder is replaced all or not at all (`optirag_core.replacing`), all
other steps are one atomic write or deletion, and each looks at what is there and not at what an earlier call has done.
Only one erasure is at work in a workspace, and one that was begun has to be finished before the next.
"""
