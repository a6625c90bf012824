"""The production log against what the model was trained on: drift, performance, evidence. What to do about it is retraining's."""
