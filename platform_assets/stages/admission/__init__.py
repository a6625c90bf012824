"""Who may start, when, and what it may cost. Pure judgement over the ledger's figures; runs are queued, held and refused elsewhere."""
