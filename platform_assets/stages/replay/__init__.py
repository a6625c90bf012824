"""Any time-ordered table as a stream of windows, and a fast model to replay a retraining policy on. Deciding is retraining's."""
