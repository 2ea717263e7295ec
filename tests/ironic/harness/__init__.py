"""An unmodified Ironic, a machine made of namespaces, and what stands between them. The README tells how it is used."""
