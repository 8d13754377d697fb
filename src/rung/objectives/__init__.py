"""What a network is trained to do: each objective turns a network and a batch into a `Loss`."""
