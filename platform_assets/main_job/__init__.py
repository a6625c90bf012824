"""The main job, `falaj run`: the whole loop headless, on the same instance that the web UI shows. No stage's work belongs here."""
