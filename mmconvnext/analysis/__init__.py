"""What the features of a model do: measures, their plots, a training hook."""
