"""What one stage hands to the next: frozen records. Imports nothing of ours, computes nothing."""
