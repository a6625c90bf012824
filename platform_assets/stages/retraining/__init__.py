"""When a retraining is asked for, and whether it helped. Evidence comes from monitoring; runs are started elsewhere."""
