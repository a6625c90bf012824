"""From a chosen candidate to production: selection, bundle, gate, rollout. Serving requests does not belong here."""
