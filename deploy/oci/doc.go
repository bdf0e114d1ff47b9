// Package oci writes container images as archives of an OCI image layout, without a
// daemon and without a registry: what `ctr images import` and `skopeo copy
// oci-archive:` read.
//
// Invariants. An image is one layer of static programs at its root, and nothing else
// but a /tmp. The same programs under the same names give the same bytes and so the
// same digests: no file has a time, an owner other than root, or an order of chance.
//
// Nothing here is shared between calls; the package is safe for concurrent use.
package oci
