"""In-memory fakes of the ports. They pass the same contract suites as the real parts and ship with the product."""
