// Package watch tells when other programs change nftables. The kernel notifies whoever
// listens of every change; a [Watcher] listens for those of some tables, without those
// that its owner makes itself.
package watch
