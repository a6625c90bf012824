"""Whether Kubernetes manifests may be applied: the pods read out of them, and the rules that each must meet."""
