"""The released checkpoints: which there are, where they are kept, fetching and verifying them."""
