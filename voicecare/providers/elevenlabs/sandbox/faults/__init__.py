"""Fault injection. `faults` describes and matches faults, `injection` changes bodies, `response` breaks connections."""
