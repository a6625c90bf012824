"""The production log against what the model was trained on: drift, performance, their evidence and pictures. Deciding what to do about it is retraining's."""
