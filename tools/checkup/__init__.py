"""What tools/doctor.py looks at; imports nothing that has to be installed."""
