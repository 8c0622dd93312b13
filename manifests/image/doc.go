// Command image builds Portcullis's container image and writes it as an OCI archive (an
// image layout in a tar file), without a container daemon and without a registry:
//
//	go run . --out portcullis-image.tar
//
// The image has no base. Its first layer is the two programs, built here as static
// binaries, its second one the SBOM. Docker users get the same files from the Dockerfile
// beside this program, which calls it with --rootfs.
//
// # The same bytes again
//
// The same sources, version, revision and Go release give the same archive, byte for
// byte, wherever they lie and whoever builds them. The build sees no paths, no version
// control and none of the caller's GOFLAGS; all times are SOURCE_DATE_EPOCH (seconds
// since 1970; 0 if it is not set); all lists are sorted.
//
// # The SBOM
//
// It is CycloneDX in JSON, made from what the Go linker wrote into the binaries, and so
// of what is in them, not of what go.mod asks for. It is a file of the image,
// /usr/share/sbom/portcullis.cdx.json, not an artifact attached to it: a file is still
// there after an import with ctr, a save and load with Docker and a copy to a registry
// without the referrers API, image scanners look for files of that name, and an archive
// with one image and nothing else is what all tools can load. Build information knows no
// licences, so the SBOM names none.
package main
