"""Every byte in or out: implementations of the ports, settings, shipped fakes."""
