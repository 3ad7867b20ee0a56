"""AI judges: models that compare, score, criticise and revise answers by the principles of a constitution."""
