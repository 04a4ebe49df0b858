"""Schemas made at random, and writes to them from 20 sessions: direct and through the proxy the same must come of them.

What is compared, and why a difference is a fault and never the order alone:

- Every row and every write belongs to a *unit*. Sessions 1 to 20 write to units of their own, in rounds: whatever reads
  rows (functions, triggers, checks) and is compared reads those of its own unit, so that what comes of a write
  does not depend on what other sessions do at the same time. The oracle is one session after the other, direct.
- In the last round sessions *clash* in twos and threes: the same key, swapped unique values, each other's parents, one
  row updated by all. Such a team is a unit too, and units do not touch each other. What comes through the proxy must be
  what comes of one of the orders in which the team's writes can run one after the other: replayed direct, order by
  order, until all teams are explained. A unit with a deadlock is not compared: direct, it may
  happen likewise (InnoDB locks the gaps between rows); nor is a team whose session's own unit had one, as that
  session's variables keep what it left.
- Values that nobody can foresee are compared by what they mean: a time lies within the run; a random value comes once;
  a connection's number or port is that of a session of the unit; two rows share a transaction id exactly where they
  do direct; a generated id, and whatever refers to one (``currval``, ``LAST_INSERT_ID()``), is named after the row that
  it was made for. What counts rows of all units is not compared, nor what counts those of a clashing team.
- The same plan all at once without the proxy (``--direct``) must show no difference either: this proves the above.
"""
