"""For tests of daskml-scale and of stages that others write: scripted faults. Not imported by the package."""
