"""What another policy would have made of the answers that past rounds recorded."""
