"""A small Kubernetes for tests: an API server, and a kubelet that runs Pods as processes of this machine.

The server does what DESIGN's evidence measured on a real one, no more; the kubelet talks only the Kubernetes API and
works with a real API server too. Not imported by the package.
"""
