// Package installcni puts the plugin portcullis-cni into the node's CNI configuration
// and takes it out again.
//
// # Which configuration
//
// A container runtime uses, of the files of its configuration directory that end in
// .conflist, .conf or .json, the first valid one in the order of their names. That is
// the active one, and it usually belongs to the cluster's main network plugin, which
// may write it anew at any time.
//
//   - A list (.conflist) is edited: the plugin is put at the end of "plugins". Not a
//     byte of the rest changes, so the order of fields, unknown ones, and the indentation
//     survive, and taking it out restores the file as it was.
//   - A single plugin (.conf, .json) has no place for a second one. A list is written
//     beside it that holds that plugin and ours, under a name that comes before it:
//     10-net.conf gets 10-net-portcullis.conflist. (The obvious 10-net.conflist would
//     come after it, and have no effect.) The file itself stays as it is. The list goes
//     when the file does.
//
// Where the plugin is in a list already, it stays at its place, and only its settings
// are corrected: another chained plugin may insist on being the last one. At the first
// place it could not work, and is moved to the end.
//
// # In which order
//
// The binary comes before the configuration that names it, and goes after it. Files
// are replaced by renaming, with the mode and owner that they had, so a runtime never
// sees half of one. Doing it again changes nothing.
package installcni
